"""Events of an operation as rows of a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from opstream_schemas.events import (
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    Progressed,
    Requested,
    Signaled,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    WaitBegun,
)
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.text import format_count

from .console import coloured, printable
from .table import text_beside

HEADING: Final = "position  time (UTC)    event             what"

EVENT_COLOURS: Final = {"succeeded": "green", "failed": "red", "canceled": "yellow"}
_MAX_SUMMARY_LENGTH: Final = 90


def event_row(
    position: int, time: datetime, name: str, data: EventData | None, *, has_colour: bool, width: int | None = None
) -> str:
    """One event as a row under `HEADING`. The width is in columns; None for no limit."""
    shown = coloured(f"{name:<16}", EVENT_COLOURS.get(name), has_colour=has_colour)
    moment = f"{as_utc(time):%H:%M:%S.%f}"[:12]
    return text_beside(f"{position:>8}  {moment}  {shown}", summary(data), width)


def as_utc(time: datetime) -> datetime:
    """The time in UTC; unchanged if it would leave the calendar (before year 1 or after year 9999)."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return time


def summary(data: EventData | None) -> str:
    """What an event says, as one short line."""
    return _shortened(printable(_describe(data)))


def _describe(data: EventData | None) -> str:
    match data:
        case Requested():
            place = f" of {data.resource_id!r}" if data.resource_id else ""
            start = f", not before {as_utc(data.start_at):%Y-%m-%d %H:%M:%SZ}" if data.start_at is not None else ""
            size = data.input_payload.size if data.input_payload else len(bytes(data.input or b""))
            return f"{data.resource}:{data.action}{place}, {size} bytes of input{start}"
        case Started():
            return f"attempt {data.attempt} by {data.runner}"
        case Progressed():
            return f"{data.percent:.0f} % {data.message}"
        case StepStarted():
            return step_text(data)
        case StepSucceeded(result_payload=PayloadRef() as payload):
            return f"{step_text(data)}: {_payload_text(payload)}"
        case StepSucceeded():
            return f"{step_text(data)}: {bytes(data.result or b'').decode()}"
        case StepFailed():
            return f"{step_text(data)}: {data.error.code}: {data.error.message}"
        case WaitBegun():
            return wait_text(data)
        case Signaled():
            who = f" by {data.by}" if data.by else f" by the {data.via}" if data.via else ""
            return f"{data.signal}{who}: {bytes(data.payload).decode()}"
        case Attached():
            return f"{data.file_name}, {data.payload.size} bytes of {data.media_type}"
        case Succeeded(result_payload=PayloadRef() as payload):
            return _payload_text(payload)
        case Succeeded():
            return bytes(data.result or b"").decode()
        case Failed() | AttemptFailed():
            return f"{data.error.code}: {data.error.message}"
        case CancelRequested() | Canceled():
            return data.reason
        case _:
            return ""


def _payload_text(payload: PayloadRef) -> str:
    return f"{payload.size} bytes in {payload.uri}"


def step_text(data: StepStarted | StepSucceeded | StepFailed) -> str:
    """The name of a step, and its key."""
    return f"{data.step} ({data.key})" if data.key else data.step


def wait_text(data: WaitBegun) -> str:
    """What is waited for, until when, and of a signal how many have to send it."""
    name = f"{data.wait} ({data.key})" if data.key else data.wait
    until = f", until {as_utc(data.until):%Y-%m-%d %H:%M:%SZ}" if data.until is not None else ""
    wait = data.signal
    if wait is None:
        return f"{name}{until}"
    who = f" of {wait.approvers}" if wait.approvers > 1 else ""
    others = ", not of the requester" if wait.not_requester else ""
    passed = f", {format_count(len(data.refused), 'signal')} did not fit" if data.refused else ""
    return f"signal {name}{who}{others}{until}{passed}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SUMMARY_LENGTH else f"{text[: _MAX_SUMMARY_LENGTH - 1]}…"
