"""Examples of events, made by the encoder of the journal, so they always have the form of real ones. Pure.

All are of one operation: each example is the last event of a short history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from opstream_schemas.action_spec import DAY_SECONDS
from opstream_schemas.events import (
    CONTENT_TYPE,
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    CleanUpBegun,
    Event,
    EventData,
    Failed,
    OperationError,
    Progressed,
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
    digest,
    encode_event,
)
from opstream_schemas.names import Kind
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.status_monitor import request_hash

from .shared import Json

SAMPLE_OPERATION_ID: Final = "01939c2e-7000-7000-8000-000000000042"
SAMPLE_KIND: Final = Kind("book", "upload-start")
"""The action of the examples for all actions."""
SAMPLE_INPUT: Final = {"title": "Moby Dick"}
SAMPLE_RESULT: Final = {"transaction": "7f3a"}

_BEGIN: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
_RUNNER: Final = "runner-1"
_SAMPLE_CLAIM: Final = "b2c1f0"
_INPUT_HASH: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_FILE_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def message_example(
    data: type[EventData], kind: Kind = SAMPLE_KIND, version: int = 1, value: object = msgspec.UNSET
) -> Json:
    """Return an AsyncAPI message example of an event type: headers and payload.

    Args:
        data: the event type.
        kind: the operation's action.
        version: the version of the action.
        value: the operation's input, as JSON, for `Requested`; its result for any other type.
    """
    shown = msgspec.UNSET if data is Requested else value
    *before, last = (
        _requested(kind, version, value if data is Requested else SAMPLE_INPUT),
        *_after_request(data, shown),
    )
    previous = ""
    for position, one in enumerate(before, start=1):
        previous = digest(encode_event(_event(one, position, previous)))
    event = _event(last, len(before) + 1, previous)
    return {
        "name": data.name,
        "summary": f"{data.__name__} of {kind}",
        "headers": {"Nats-Msg-Id": event.id, "Content-Type": CONTENT_TYPE},
        "payload": msgspec.json.decode(encode_event(event)),
    }


def _after_request(data: type[EventData], result: object) -> Sequence[EventData]:
    """Return the events after the request, up to one of the type."""
    started = Started(attempt=1, runner=_RUNNER, token=_SAMPLE_CLAIM, ticket=4711, lease=30.0)
    wish = CancelRequested(by="ann@example.org", reason="wrong book")
    error = OperationError(code="ClientOutOfDate", message="update the client to 2.0")
    lives: dict[type[EventData], Sequence[EventData]] = {
        Requested: (),
        Started: (started,),
        Progressed: (started, Progressed(percent=40.0, message="two of five files are done")),
        StepStarted: (started, StepStarted(attempt=1, step="charge", input_hash=_INPUT_HASH)),
        StepSucceeded: (started, _step_succeeded()),
        StepFailed: (started, StepFailed(attempt=1, step="ship", input_hash=_INPUT_HASH, error=error, seconds=0.3)),
        WaitBegun: (started, WaitBegun(attempt=1, wait="cool down", until=_BEGIN + timedelta(days=3))),
        Attached: (started, _attached()),
        AttemptFailed: (started, _attempt_failed()),
        Signaled: (
            started,
            _wait_begun(),
            Signaled(signal="approval", payload=_raw({"approved": True}), by="bob@example.org"),
        ),
        CancelRequested: (started, wish),
        CleanUpBegun: (started, wish, CleanUpBegun(attempt=1)),
        Succeeded: (started, Succeeded(result=_raw(SAMPLE_RESULT if result is msgspec.UNSET else result))),
        Failed: (started, Failed(error=error)),
        Canceled: (started, wish, Canceled(reason=wish.reason)),
    }
    return lives[data]


def _requested(kind: Kind, version: int, value: object) -> Requested:
    given = SAMPLE_INPUT if value is msgspec.UNSET else value
    return Requested(
        resource=kind.resource,
        resource_id="42",
        action=kind.action,
        action_version=version,
        input=_raw(given),
        request_hash=request_hash(kind, "42", given, ""),
        deadline=_BEGIN + timedelta(days=1),
        retention=DAY_SECONDS,
        trace=Trace(traceparent=_TRACEPARENT),
    )


def _attached() -> Attached:
    uri = f"payload:{SAMPLE_OPERATION_ID}/01939c2e7000700080000000000000aa"
    file = PayloadRef(uri=uri, size=48_213, sha256=_FILE_HASH)
    return Attached(attempt=1, file_name="proof.pdf", media_type="application/pdf", payload=file)


def _attempt_failed() -> AttemptFailed:
    error = OperationError(code="StorageThrottled", message="the storage asks for patience")
    return AttemptFailed(attempt=1, error=error, retry_at=_BEGIN + timedelta(seconds=6), counted=True)


def _wait_begun() -> WaitBegun:
    schema = {
        "type": "object",
        "properties": {"approved": {"type": "boolean"}},
        "required": ["approved"],
        "additionalProperties": False,
    }
    wait = SignalWait(schema=_raw(schema), not_requester=True)
    return WaitBegun(attempt=1, wait="approval", until=_BEGIN + timedelta(hours=8), signal=wait)


def _step_succeeded() -> StepSucceeded:
    return StepSucceeded(
        attempt=1, step="copy", key="3", input_hash=_INPUT_HASH, result=_raw({"copied": 17}), seconds=4.2
    )


def _event(data: EventData, position: int, previous: str) -> Event:
    return Event(
        id=f"01939c2e-7000-7000-8000-{position:012}",
        source=f"opstream/runner/{_RUNNER}" if isinstance(data, _RUNNER_EVENTS) else "opstream/api",
        operation_id=SAMPLE_OPERATION_ID,
        time=_BEGIN + timedelta(seconds=position - 1),
        position=position,
        previous_hash=previous,
        data=data,
    )


def _raw(value: Any) -> msgspec.Raw:  # noqa: ANN401 - JSON
    return msgspec.Raw(msgspec.json.encode(value))


_RUNNER_EVENTS: Final = (
    Started,
    Progressed,
    StepStarted,
    StepSucceeded,
    StepFailed,
    WaitBegun,
    Attached,
    CleanUpBegun,
    AttemptFailed,
    Succeeded,
    Failed,
    Canceled,
)
