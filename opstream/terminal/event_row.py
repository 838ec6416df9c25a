"""Events of an operation as lines of a table. Called by the demo (`narration`) and by `opstream events`; `replaying`
and `deliveries` use parts of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    Progressed,
    Requested,
    Started,
    Succeeded,
)

from .console import coloured, printable
from .table import text_beside

HEADING: Final = "position  time (UTC)    event             what"

EVENT_COLOURS: Final = {"succeeded": "green", "failed": "red", "canceled": "yellow"}
_MAX_SUMMARY_LENGTH: Final = 90


def event_row(
    position: int, time: datetime, name: str, data: EventData | None, *, is_on: bool, room: int | None = None
) -> str:
    """One event; `is_on` for colours, `room` for the columns of a terminal."""
    shown = coloured(f"{name:<16}", EVENT_COLOURS.get(name), is_on=is_on)
    moment = f"{as_utc(time):%H:%M:%S.%f}"[:12]
    return text_beside(f"{position:>8}  {moment}  {shown}", summary(data), room)


def as_utc(time: datetime) -> datetime:
    """The same time in UTC, or as it is where UTC has none for it."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return time  # a foreign one, at the end of the calendar


def summary(data: EventData | None) -> str:
    """What an event says, in one short line."""
    return _shortened(printable(_describe(data)))


def _describe(data: EventData | None) -> str:
    match data:
        case Requested():
            place = f" of {data.resource_id!r}" if data.resource_id else ""
            return f"{data.resource}:{data.action}{place}, {len(bytes(data.input))} bytes of input"
        case Started():
            return f"attempt {data.attempt} by {data.runner}"
        case Progressed():
            return f"{data.percent:.0f} % {data.message}"
        case Succeeded():
            return bytes(data.result).decode()
        case Failed() | AttemptFailed():
            return f"{data.error.code}: {data.error.message}"
        case CancelRequested() | Canceled():
            return data.reason
        case _:
            return ""


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SUMMARY_LENGTH else f"{text[: _MAX_SUMMARY_LENGTH - 1]}…"
