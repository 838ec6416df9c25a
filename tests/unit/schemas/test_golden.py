"""The wire form, byte for byte: every version must read what another one stored, and store the same again.

A difference changes the contract. If that is intended, `OPSTREAM_WRITE_GOLDEN=1` rewrites the files, and the tests fail
that once.
"""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from opstream_schemas.bulk.records import Authority, BulkItem, BulkProgress
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.event_types.clean_up import StepName
from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.events import (
    EVENT_DATA,
    EVENT_TYPES,
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    ChildWait,
    CleanUpBegun,
    Event,
    EventData,
    Failed,
    ForcedEnd,
    OperationError,
    ParentRef,
    Progressed,
    RefusedSignal,
    Requested,
    Signaled,
    SignalWait,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    Trace,
    WaitBegun,
    decode_event,
    encode_event,
    recorded_event,
)
from opstream_schemas.json_schemas import json_schemas
from opstream_schemas.operation.state import Operation
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.seals.sealed_state import blank_operation
from opstream_schemas.status_monitor import BlockedBy, WaitingReason, build_status_monitor
from tests.support.schemas.histories import DEADLINE, NOW, History

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parent / "golden"
ERROR = OperationError(code="ClientOutOfDate", message="update the client to 2.0 → “now”", target="client.version")
BARE_ERROR = OperationError(code=500, message="the action failed")
SCHEMA = msgspec.Raw(b'{"type":"object","properties":{"approved":{"type":"boolean"}},"required":["approved"]}')
INPUT_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
RETRY_AT = NOW + timedelta(minutes=5)
START_AT = NOW + timedelta(hours=2)

KEY = "payload:0197f1c2-7b1e-7000-8000-000000000001/"
FILE = PayloadRef(uri=f"{KEY}{'a' * 32}", size=48_213, sha256="9f86d081884c7d659a2feaa0c55ad015" * 2)
DOCUMENT = PayloadRef(uri=f"{KEY}{'b' * 32}", size=1_000_000, sha256="2c26b46b68ffc68ff99b453c1d304134" * 2)

# One event of each type with every member set, and one without those that may be absent, where there are any.
FULL: list[EventData] = [
    Requested(
        resource="book",
        resource_id="Krieg & Frieden ↔ 42",
        action="upload-start",
        action_version=3,
        input=msgspec.Raw(b'{"files": [{"path": "a.txt", "size": 1.50}]}'),
        request_hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        deadline=DEADLINE,
        retention=172_800.5,
        retention_failed=7_776_000.0,
        retention_canceled=86_400.25,
        hold="action.book.upload-start.0123456789abcdef0123456789abcdef",
        caller="ann@example.org",
        client_id="catalog-editor",
        client_address="192.0.2.7",
        callback="https://hooks.example.org/books",
        tenant="acme",
        own_id="upload-of-42",
        labels={"team": "press", "run/no.": "7 of 9"},
        retry_of="upload-of-41",
        priority="high",
        authority=Authority(key_id="k1", scopes=("read", "submit:book:*"), expires_at=RETRY_AT),
        trace=Trace(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="vendor=1"),
    ),
    Started(attempt=2, runner="runner-a", token="t0k3n", ticket=4711, lease=30.0, clean_up=True),
    Progressed(
        percent=12.5,
        message="copying",
        bulk=BulkProgress(
            matched=8,
            done=2,
            refused=1,
            after="1786876013589793792",
            items=(
                BulkItem(id="a", operation_id="a-retry-1"),
                BulkItem(id="b", status="Canceled"),
                BulkItem(id="c", code="InvalidInput", message="the input is not valid"),
            ),
        ),
    ),
    StepStarted(attempt=2, step="charge", key="7", input_hash=INPUT_HASH),
    StepSucceeded(
        attempt=2,
        step="copy → here",
        key="7",
        input_hash=INPUT_HASH,
        result=msgspec.Raw(b'{"copied": 17}'),
        seconds=4.25,
        tries=3,
    ),
    StepFailed(attempt=2, step="ship", key="7", input_hash=INPUT_HASH, error=ERROR, seconds=0.5, tries=3),
    WaitBegun(
        attempt=2,
        wait="approval",
        key="7",
        until=RETRY_AT,
        hold=True,
        signal=SignalWait(schema=SCHEMA, approvers=2, not_requester=True),
        refused=(RefusedSignal(position=3, reason="it does not fit: Expected `bool`, got `str`"),),
    ),
    Signaled(
        signal="approval",
        payload=msgspec.Raw(b'{"approved": true}'),
        by="bob@example.org",
        via="url",
        request_id="47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
        request_hash=INPUT_HASH,
    ),
    Attached(attempt=2, file_name="proof (1).pdf", media_type="application/pdf", payload=FILE),
    AttemptFailed(attempt=2, error=ERROR, retry_at=RETRY_AT, counted=True),
    CancelRequested(by="ann@example.org", reason="wrong book"),
    CleanUpBegun(attempt=2, canceled=(StepName(name="ship", key="7"), StepName(name="tell"))),
    Succeeded(result=msgspec.Raw(b'{"uploads": ["a.txt"]}')),
    Failed(error=ERROR, forced=ForcedEnd(sequence=4711, passed_over=2, reason="a client of ours wrote there")),
    Canceled(by="ann@example.org", reason="wrong book"),
]
MINIMAL: list[EventData] = [
    Requested(
        resource="book",
        action="upload-start",
        action_version=1,
        input=msgspec.Raw(b"{}"),
        request_hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        deadline=DEADLINE,
        retention=86_400.0,
    ),
    Started(attempt=1, runner="runner-a", token="t0k3n", ticket=1, lease=30.0),
    Progressed(percent=0.0),
    StepStarted(attempt=1, step="charge", input_hash=INPUT_HASH),
    StepSucceeded(attempt=1, step="copy", input_hash=INPUT_HASH, result=msgspec.Raw(b"null"), seconds=0.0),
    StepFailed(attempt=1, step="ship", input_hash=INPUT_HASH, error=BARE_ERROR, seconds=0.0),
    WaitBegun(attempt=1, wait="sleep"),
    Signaled(signal="approval", payload=msgspec.Raw(b"{}")),
    AttemptFailed(attempt=1, error=BARE_ERROR, retry_at=RETRY_AT, counted=False),
    CancelRequested(),
    CleanUpBegun(attempt=1),
    Failed(error=BARE_ERROR),
    Canceled(),
]


def event(data: EventData) -> Event:
    """The fixed envelope: a request comes first, anything else fourth."""
    is_first = isinstance(data, Requested)
    return Event(
        id="0197f1c2-7b1e-7000-8000-00000000000a",
        source="opstream/test",
        operation_id="0197f1c2-7b1e-7000-8000-000000000001",
        time=NOW,
        position=1 if is_first else 4,
        previous_hash="" if is_first else "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        data=data,
    )


OF_VERSION_2 = {"start_at": START_AT, "start_after": 7200}
"""Members with which a request is of another type."""
OF_VERSION_5 = {"confidential": True}
OF_OTHER_TYPES = {
    Requested: {*OF_VERSION_2, *OF_VERSION_5, "input_payload", "uploads"},
    StepSucceeded: {"result_payload"},
    Succeeded: {"result_payload"},
}
UPLOAD = Attachment(file_name="scan.tif", media_type="image/tiff", payload=FILE)
UPLOADED = msgspec.structs.replace(FULL[0], **OF_VERSION_2, uploads=(UPLOAD,))
LATER = msgspec.structs.replace(FULL[0], **OF_VERSION_2)
DOCUMENTS = {"input", "result"}
CLAIMED = [
    msgspec.structs.replace(FULL[0], input=msgspec.UNSET, input_payload=DOCUMENT),
    StepSucceeded(
        attempt=2, step="copy", key="7", input_hash=INPUT_HASH, result_payload=DOCUMENT, seconds=4.25, tries=3
    ),
    Succeeded(result_payload=DOCUMENT),
]
CLAIMS = {Requested: "requested.v3", StepSucceeded: "step-succeeded.v2", Succeeded: "succeeded.v2"}
"""Events whose document is a payload are of another type."""
SEALED = msgspec.structs.replace(LATER, input=msgspec.Raw(b'"sealed:1:bm9uY2UgYW5kIGNpcGhlcnRleHQ="'), **OF_VERSION_5)
OF_CHILDREN: dict[str, dict[str, Any]] = {
    "requested": {"parent": ParentRef(id="tPARENT", own_id="print-42", name="pages", key="7", index=3, depth=2)},
    "step-started": {"children": 3},
    "waiting": {"child": ChildWait(id="child-a", fail_fast=True, any_from=RETRY_AT, ended=2)},
}
"""Members that only parents and children have, by event."""
OF_SIGNALS: dict[str, dict[str, Any]] = {"waiting": {"signal": None, "refused": ()}}
"""Members that a wait for children does not have."""
EVENTS = (
    {f"{data.name}.json": event(data) for data in FULL}
    | {f"{data.name}.minimal.json": event(data) for data in MINIMAL}
    | {"requested.v2.json": event(LATER), "requested.v4.json": event(UPLOADED), "requested.v5.json": event(SEALED)}
    | {f"{CLAIMS[type(data)]}.json": event(data) for data in CLAIMED}
    | {
        f"{data.name}.child.json": event(
            msgspec.structs.replace(data, **OF_CHILDREN[data.name], **OF_SIGNALS.get(data.name, {}))
        )
        for data in FULL
        if data.name in OF_CHILDREN
    }
)

_STARTED = Started(attempt=1, runner="runner-a", token="t0k3n", ticket=1, lease=30.0)
_PROGRESSED = Progressed(percent=12.5, message="copying")
_HANDED_BACK = AttemptFailed(attempt=1, error=ERROR, retry_at=RETRY_AT, counted=False)
STATES: dict[str, list[EventData]] = {
    "not-started": [],
    "running": [_STARTED, _PROGRESSED, CancelRequested(by="ann@example.org", reason="wrong book")],
    "waiting": [_STARTED, _PROGRESSED, _HANDED_BACK],
    "succeeded": [_STARTED, _PROGRESSED, Succeeded(result=msgspec.Raw(b'{"uploads": ["a.txt"]}'))],
    "with-payloads": [
        _STARTED,
        Attached(attempt=1, file_name="proof.pdf", media_type="application/pdf", payload=FILE),
        Succeeded(result_payload=DOCUMENT),
    ],
    "failed": [_STARTED, Failed(error=ERROR)],
    "canceled": [Canceled(reason="wrong book")],
}


def operation(state: str) -> Operation:
    """The fold of a fixed history."""
    return History("0197f1c2-7b1e-7000-8000-000000000001").append(FULL[0], *STATES[state]).operation


OPERATIONS = {f"operation.{state}.json": operation(state) for state in STATES}
SCHEDULED = History("0197f1c2-7b1e-7000-8000-000000000001").append(LATER).operation
OPERATIONS["operation.scheduled.json"] = SCHEDULED
WITH_UPLOADS = History("0197f1c2-7b1e-7000-8000-000000000001").append(UPLOADED).operation
OPERATIONS["operation.with-uploads.json"] = WITH_UPLOADS
_STEP = StepStarted(attempt=1, step="charge", input_hash=INPUT_HASH)
OPERATIONS["operation.with-steps.json"] = (
    History("0197f1c2-7b1e-7000-8000-000000000001").append(FULL[0], _STARTED, _STEP).operation
)
_SLEEP = WaitBegun(attempt=1, wait="cool down", key="7", until=RETRY_AT)
SLEEPING = History("0197f1c2-7b1e-7000-8000-000000000001").append(FULL[0], _STARTED, _SLEEP).operation
OPERATIONS["operation.sleeping.json"] = SLEEPING
_EARLY = Signaled(signal="note", payload=msgspec.Raw(b"{}"), by="cy", request_id="r" * 43, request_hash=INPUT_HASH)
_WAIT = SignalWait(schema=SCHEMA, approvers=2, not_requester=True)
_BEGUN = WaitBegun(attempt=1, wait="approval", until=RETRY_AT, signal=_WAIT)
_APPROVED = Signaled(signal="approval", payload=msgspec.Raw(b'{"approved":true}'), by="bob@example.org")
CONFIDENTIAL = History("0197f1c2-7b1e-7000-8000-000000000001").append(SEALED, _STARTED, _STEP).operation
OPERATIONS["operation.confidential.json"] = CONFIDENTIAL
AWAITING = History("0197f1c2-7b1e-7000-8000-000000000001").append(FULL[0], _STARTED, _EARLY, _BEGUN, _APPROVED)
OPERATIONS["operation.awaiting.json"] = AWAITING.operation
_ASKS = StepStarted(attempt=1, step="pages", key="7", input_hash=INPUT_HASH, children=3)
_WAITS = WaitBegun(attempt=1, wait="pages", key="7", until=RETRY_AT, child=ChildWait(id="child-a"))
_CHILD = msgspec.structs.replace(FULL[0], **OF_CHILDREN["requested"])
PARENT = History("0197f1c2-7b1e-7000-8000-000000000001").append(_CHILD, _STARTED, _ASKS, _WAITS).operation
OPERATIONS["operation.parent.json"] = PARENT
MONITORS = {f"monitor.{state}.json": build_status_monitor(operation(state)) for state in STATES} | {
    "monitor.scheduled.json": build_status_monitor(
        SCHEDULED, blocked_by=BlockedBy(reason=WaitingReason.START_TIME, until=SCHEDULED.start_at)
    ),
    "monitor.sleeping.json": build_status_monitor(
        SLEEPING, blocked_by=BlockedBy(reason=WaitingReason.SLEEP, until=RETRY_AT, message="cool down")
    ),
    "monitor.with-uploads.json": build_status_monitor(WITH_UPLOADS),
    "monitor.erased.json": build_status_monitor(
        blank_operation(operation("failed"), Erasure(at=RETRY_AT, by="ann@example.org", reason="ticket 4711"))
    ),
    "monitor.awaiting.json": build_status_monitor(AWAITING.operation),
    "monitor.parent.json": build_status_monitor(
        PARENT, blocked_by=BlockedBy(reason=WaitingReason.CHILD, operation_id="child-a", message="pages")
    ),
    "monitor.queued.json": build_status_monitor(
        operation("not-started"), blocked_by=BlockedBy(reason=WaitingReason.RESOURCE, position=2)
    ),
}
GOLDEN: dict[str, Callable[[], bytes]] = {
    **{name: lambda one=one: encode_event(one) for name, one in EVENTS.items()},
    **{name: lambda one=one: msgspec.json.encode(one) for name, one in (OPERATIONS | MONITORS).items()},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_are_those_of_the_golden_file(name: str) -> None:
    """Today's bytes are those of the file."""
    actual = GOLDEN[name]()
    if os.environ.get("OPSTREAM_WRITE_GOLDEN") == "1":
        (FOLDER / name).write_bytes(actual)
        pytest.fail("written; look at the difference and run again without OPSTREAM_WRITE_GOLDEN")

    assert (FOLDER / name).read_bytes() == actual


def test_every_file_is_compared() -> None:
    """Every golden file is compared with something."""
    assert GOLDEN.keys() == {path.name for path in FOLDER.iterdir()}


def test_every_event_type_has_golden_files() -> None:
    """Each type has a file with all members, and one without the optional ones if it has any."""
    assert list(EVENT_DATA) == [type(data) for data in FULL]
    optional = [type(data) for data in FULL if _stripped(data) != data]
    assert optional == [type(data) for data in MINIMAL]


@pytest.mark.parametrize("data", FULL, ids=lambda data: data.name)
def test_the_full_events_leave_nothing_out(data: EventData) -> None:
    """A new member of an event must be in its golden file; those of other versions of its type, and of children, are in
    others."""
    assert set(_at_default(data)) == {*OF_OTHER_TYPES.get(type(data), ()), *OF_CHILDREN.get(data.name, ())}


@pytest.mark.parametrize("data", MINIMAL, ids=lambda data: data.name)
def test_the_minimal_events_hold_nothing_optional(data: EventData) -> None:
    """A minimal event has only required members."""
    assert _stripped(data) == data


@pytest.mark.parametrize("name", EVENTS)
def test_a_golden_event_is_decoded(name: str) -> None:
    """The stored bytes of any version decode to the event that they were made from."""
    payload = (FOLDER / name).read_bytes()

    assert recorded_event(EVENTS[name], payload, 9) == decode_event(payload, 9)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_golden_snapshot_is_decoded(name: str) -> None:
    """The stored snapshot of any version with this fold decodes to the state that it was made from."""
    assert OPERATIONS[name] == msgspec.json.decode((FOLDER / name).read_bytes(), type=Operation)


@pytest.mark.parametrize("name", EVENTS)
def test_a_golden_event_is_valid(name: str) -> None:
    """Each stored event matches the published JSON Schema of its type, and no other one."""
    document = json.loads((FOLDER / name).read_bytes())

    fitting = {name for name in EVENT_TYPES if _validator(name).is_valid(document)}
    assert {document["type"]} == fitting


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_golden_snapshot_is_valid(name: str) -> None:
    """Each snapshot matches the published JSON Schema of the operation."""
    _validator("operation").validate(json.loads((FOLDER / name).read_bytes()))


def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json_schemas()[name], validate_formats=True)


def _at_default(value: msgspec.Struct) -> list[str]:
    """The optional members, at any depth, that have their default value."""
    found = []
    for field in msgspec.structs.fields(value):
        member: Any = getattr(value, field.name)
        if not field.required and member == field.default:
            found.append(field.name)
        if isinstance(member, msgspec.Struct):
            found += _at_default(member)
    return found


def _stripped(data: EventData) -> EventData:
    """The data without its optional members, at any depth. A document is one of two members, so it stays."""

    def strip(value: Any) -> Any:
        if not isinstance(value, msgspec.Struct):
            return value
        required = {field.name for field in msgspec.structs.fields(value) if field.required} | DOCUMENTS & {
            field.name for field in msgspec.structs.fields(value)
        }
        return type(value)(**{name: strip(getattr(value, name)) for name in required})

    stripped = strip(data)
    assert isinstance(stripped, EventData)
    return stripped
