"""What a client sees, byte for byte, and which requests are identical."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import (
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    OperationError,
    Progressed,
    Succeeded,
)
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import (
    BlockedBy,
    ErrorBody,
    ErrorDetail,
    ErrorObject,
    StatusMonitor,
    WaitingReason,
    build_status_monitor,
    is_same_json,
    request_hash,
)
from tests.support.schemas.histories import NOW, History, handed_back, request, started

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")


def shown(*datas: EventData, **changes: Any) -> dict[str, Any]:
    """The monitor's members, in their order, after a request and some events."""
    members = json.loads(
        msgspec.json.encode(build_status_monitor(History().append(request(**changes), *datas).operation))
    )
    assert isinstance(members, dict)
    return members


@pytest.mark.parametrize(
    ("datas", "expected"),
    [
        ([], {"id": "op-1", "status": "NotStarted"}),
        ([started()], {"id": "op-1", "status": "Running"}),
        ([started(), handed_back(counted=True)], {"id": "op-1", "status": "Running"}),
        ([started(), CancelRequested()], {"id": "op-1", "status": "Running"}),
        (
            [started(), Succeeded(result=msgspec.Raw(b'{"a":1}'))],
            {"id": "op-1", "status": "Succeeded", "result": {"a": 1}},
        ),
        (
            [started(), Succeeded(result=msgspec.Raw(b"null"))],
            {"id": "op-1", "status": "Succeeded", "result": None},
        ),
        (
            [started(), Failed(error=OperationError(code=400, message="no"))],
            {"id": "op-1", "status": "Failed", "error": {"code": 400, "message": "no"}},
        ),
        ([started(), Canceled(reason="late")], {"id": "op-1", "status": "Canceled"}),
    ],
)
def test_the_leading_members_are_those_of_the_contract(datas: list[EventData], expected: dict[str, Any]) -> None:
    """Id, status and the outcome lead in this order; a result only when Succeeded, an error only when Failed."""
    members = shown(*datas)

    assert list(expected.items()) == list(members.items())[: len(expected)]
    assert {"result", "error"} & expected.keys() == {"result", "error"} & members.keys()


def test_a_fresh_operation_shows_no_more_than_it_has() -> None:
    """Members without a value are left out, not null."""
    expected = ["id", "status", "kind", "resourceId", "createdAt"]

    assert expected == list(shown())


def test_an_operation_without_a_resource_id_shows_none() -> None:
    """`POST /book:upload-start` has no resource id to show."""
    assert "resourceId" not in shown(resource_id="")


def test_a_waiting_operation_shows_when_it_goes_on() -> None:
    """The client sees the attempt, its progress and message, and the time of the retry."""
    members = shown(
        started(),
        Progressed(percent=40.0, message="copying"),
        handed_back(counted=True, retry_at=NOW + timedelta(minutes=5)),
    )

    expected = {
        "kind": "book:upload-start",
        "resourceId": "42",
        "createdAt": "2026-03-14T09:26:53.589793Z",
        "startedAt": "2026-03-14T09:26:54.589793Z",
        "attempt": 1,
        "retryAt": "2026-03-14T09:31:53.589793Z",
        "percentComplete": 40.0,
        "message": "copying",
    }
    assert list(expected.items()) == list(members.items())[2:]


def test_a_finished_operation_shows_when() -> None:
    """An outcome has its time, and there is no time of a retry."""
    members = shown(started(), handed_back(counted=True), started(2), Canceled())

    assert (NOW + timedelta(seconds=4)).isoformat().replace("+00:00", "Z") == members["finishedAt"]
    assert "retryAt" not in members


def test_zero_percent_is_shown() -> None:
    """0 percent is shown; it differs from no reported progress."""
    assert not shown(started(), Progressed(percent=0.0))["percentComplete"]


def test_a_success_shows_no_stale_progress() -> None:
    """The last report was made before the end: 98.17 percent and its message are not the progress of a success."""
    reported = Progressed(percent=98.17, message="file 55 of 56")
    members = shown(started(), reported, Succeeded(result=msgspec.Raw(b"1")))

    assert members["percentComplete"] == 100
    assert "message" not in members


def test_a_success_without_reports_shows_no_progress() -> None:
    """An action that never reports has no progress, also at its end."""
    assert "percentComplete" not in shown(started(), Succeeded(result=msgspec.Raw(b"1")))


@pytest.mark.parametrize("end", [Failed(error=OperationError(code=400, message="no")), Canceled(), None])
def test_other_ends_show_how_far_it_came(end: EventData | None) -> None:
    """Progress and message are kept after a failure and a cancel."""
    members = shown(started(), Progressed(percent=98.17, message="file 55 of 56"), *([end] if end else []))

    assert (members["percentComplete"], members["message"]) == (98.17, "file 55 of 56")


def test_a_pending_cancel_is_shown() -> None:
    """From the request until the end, however it ends."""
    pending = [started(), CancelRequested(by="ann", reason="late")]
    ends: list[EventData] = [
        Canceled(),
        Succeeded(result=msgspec.Raw(b"1")),
        Failed(error=OperationError(code=4, message="")),
    ]

    assert shown(*pending)["cancelRequested"] is True
    assert shown(*pending, handed_back(counted=False))["cancelRequested"] is True
    assert "cancelRequested" not in shown(started())
    for end in ends:
        assert "cancelRequested" not in shown(*pending, end)


def test_a_queued_operation_shows_its_position() -> None:
    """Position and reason are the last members, and only an operation that waits has them."""
    operation = History().append(request()).operation
    blocked_by = BlockedBy(reason=WaitingReason.RESOURCE, position=3, operation_id="op-1")
    members = json.loads(msgspec.json.encode(build_status_monitor(operation, blocked_by=blocked_by)))

    assert list(members)[5:] == ["queuePosition", "waitingFor", "blockedBy"]
    assert (members["queuePosition"], members["waitingFor"]) == (3, "Resource")
    assert members["blockedBy"] == {"reason": "Resource", "position": 3, "operationId": "op-1"}


def test_an_operation_that_has_started_waits_for_its_next_attempt() -> None:
    """`waitingFor` is about operations that have not started, `blockedBy` about all that don't run."""
    operation = History().append(request(), started(), handed_back(counted=True)).operation
    blocked_by = BlockedBy(reason=WaitingReason.RETRY, until=operation.waiting.retry_at, attempt=1)
    members = json.loads(msgspec.json.encode(build_status_monitor(operation, blocked_by=blocked_by)))

    assert "waitingFor" not in members
    assert members["blockedBy"] == {"reason": "Retry", "until": members["retryAt"], "attempt": 1}


def test_a_client_reads_reasons_of_later_versions() -> None:
    """A word that it does not know is kept, not refused; and a service of an earlier version sends none."""
    read = msgspec.json.Decoder(StatusMonitor).decode

    assert read(b'{"id": "1", "status": "NotStarted", "waitingFor": "Moon"}').waiting_for == "Moon"
    assert read(b'{"id": "1", "status": "NotStarted"}').waiting_for == ""


def test_nothing_internal_is_shown() -> None:
    """The monitor has no caller, token, hash, or error of an attempt."""
    members = shown(started(token="secret"), handed_back(counted=True), caller="ann")

    known = {"id", "status", "kind", "resourceId", "createdAt", "startedAt", "attempt", "retryAt"}
    assert known == members.keys()


def test_an_error_body_holds_what_is_known() -> None:
    """The body has the form of the contract; empty members are left out."""
    detail = ErrorDetail(code="TooShort", message="…", target="files[0].hash")
    full = ErrorObject(code=ErrorCode.INVALID_INPUT, message="m", target="files", details=(detail,), operation_id="op")
    bodies = [ErrorBody(error=full), ErrorBody(error=ErrorObject(code="NotFound", message="m"))]

    expected = [
        {
            "error": {
                "code": "InvalidInput",
                "message": "m",
                "target": "files",
                "details": [{"code": "TooShort", "message": "…", "target": "files[0].hash"}],
                "operationId": "op",
            }
        },
        {"error": {"code": "NotFound", "message": "m"}},
    ]
    assert expected == [json.loads(msgspec.json.encode(body)) for body in bodies]


def test_the_error_codes_are_those_of_the_contract() -> None:
    """Codes are append-only: this list may grow, and none of it may change."""
    expected = {
        "InvalidInput", "InvalidHeader", "InvalidParameter", "OperationIdReused", "UnknownAction", "OperationNotFound",
        "NotFound", "MethodNotAllowed", "OperationFinished", "ResourceBusy", "PayloadTooLarge", "UnsupportedMediaType",
        "JournalUnavailable", "JournalFull", "InternalError", "ResultTooLarge", "DeadlineExceeded", "RunnerLost",
        "RunnerStopped", "AttemptTimedOut", "FailedByOperator", "CrossSiteRequest", "UnknownHost", "RequestTimeout",
        "TooManyConnections", "InvalidResult", "Unauthenticated", "Forbidden", "IdentityProviderUnavailable",
        "TooManyRequests", "ActionNotServed", "ScheduleNotFound", "ActionServed", "ScheduleNameTaken",
        "TooManySchedules", "IndexOff", "IndexUnavailable",
        "OperationNotRetriable",
        "DeliveryNotFound", "DeadLetterNotFound", "HandlingFailed", "ServiceNotRunning",
        "InvalidStep", "StepInputChanged", "StepInterrupted", "StepResultTooLarge",
        "InvalidWait", "WaitTimedOut", "RequestIdReused", "SignalTooLate", "SignalRepeated", "SenderNotAllowed",
        "TooManySignals",
        "PayloadStoreUnavailable", "PayloadUnreadable", "PayloadNotFound", "RangeNotSatisfiable",
        "ChildFailed", "ChildRefused",
        "NotConfidential", "OperationOpen", "OperationErased", "KeyMissing", "KeysUnavailable",
    }  # fmt: skip

    assert expected == set(ErrorCode)


def test_a_request_hash_is_stable() -> None:
    """The hash is in the journal, so every version must compute the same one."""
    sorted_json = (
        '{"action":"book:upload-start","caller":"ann",'
        '"input":{"a":{"x":true,"y":"é"},"b":[1,2.5,null]},"resourceId":"42"}'
    )

    expected = hashlib.sha256(sorted_json.encode()).hexdigest()
    assert expected == request_hash(KIND, "42", {"b": [1, 2.5, None], "a": {"y": "é", "x": True}}, "ann")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((KIND, "42", {}, ""), (Kind("book", "upload-end"), "42", {}, "")),
        ((KIND, "42", {}, ""), (Kind("shelf", "upload-start"), "42", {}, "")),
        ((KIND, "42", {}, ""), (KIND, "43", {}, "")),
        ((KIND, "42", {}, ""), (KIND, "", {}, "")),
        ((KIND, "42", {}, ""), (KIND, "42", [], "")),
        ((KIND, "42", {"a": 1}, ""), (KIND, "42", {"a": 2}, "")),
        ((KIND, "42", {"a": 1}, ""), (KIND, "42", {"a": "1"}, "")),
        ((KIND, "42", {"a": None}, ""), (KIND, "42", {}, "")),
        ((KIND, "42", [1, 2], ""), (KIND, "42", [2, 1], "")),
        ((KIND, "42", {}, "ann"), (KIND, "42", {}, "bob")),
        ((KIND, "42", {}, "ann"), (KIND, "42", {}, "")),
        ((KIND, "a", {}, "b"), (KIND, "ab", {}, "")),
        ((KIND, "42", 2**64 + 1, ""), (KIND, "42", 2**64 + 2, "")),
    ],
)
def test_another_request_has_another_hash(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """Another action, resource id, input or caller makes another request."""
    assert request_hash(*one) != request_hash(*other)


def test_the_order_of_members_makes_no_other_request() -> None:
    """A client may order members differently at any depth, and use escapes in texts."""
    one = msgspec.json.decode('{"a": {"x": "é", "y": 2}, "b": 1}')
    other = msgspec.json.decode('{"b": 1, "a": {"y": 2, "x": "\\u00e9"}}')

    assert request_hash(KIND, "42", one, "") == request_hash(KIND, "42", other, "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", "10e-1"),
        ("100", "1e2"),
        ("0", "-0.0"),
        ("1e22", "10000000000000000000000"),
        ('{"a": [1, {"b": 2.50}]}', '{"a": [1.0, {"b": 25e-1}]}'),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
        ('"\\u0061/"', '"a\\/"'),
        ("null", "null"),
    ],
)
def test_the_same_value_in_another_spelling(one: str, other: str) -> None:
    """A client's other encoder must not make a repetition another request."""
    assert is_same_json(msgspec.json.decode(one), msgspec.json.decode(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "true"),
        ("0", "false"),
        ("1", '"1"'),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 1]"),
        ('{"a": 1}', '{"a": 1, "b": null}'),
        ('{"a": 1}', '{"A": 1}'),
        ("{}", "[]"),
        ("null", "0"),
        ("9007199254740993", "9007199254740992.0"),
        ('{"a": 1}', "[1]"),
        ("[1]", '{"a": 1}'),
        ('"a"', '"A"'),
    ],
)
def test_another_value(one: str, other: str) -> None:
    """What differs as a value is another request."""
    assert not is_same_json(msgspec.json.decode(one), msgspec.json.decode(other))
    assert not is_same_json(msgspec.json.decode(other), msgspec.json.decode(one))
