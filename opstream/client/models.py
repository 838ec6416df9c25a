"""What a client holds of an operation: its state as the service told it, and its events. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.events import Canceled, EventData, Failed, Succeeded, decode_event
from opstream_schemas.operation.state import TERMINAL_STATUSES, Status
from opstream_schemas.status_monitor import StatusMonitor

TERMINAL_EVENTS: Final = frozenset({Succeeded.name, Failed.name, Canceled.name})

_TYPE: Final = re.compile(r"opstream\.action\.([a-z-]+)\.v[0-9]+")


class Operation(msgspec.Struct, frozen=True):
    """An operation as the service last told it. To come back to it later, keep its `id`: every call takes that too."""

    url: str
    """Where its status is."""
    monitor: StatusMonitor
    """All that the service told."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.monitor.id

    @property
    def status(self) -> Status:
        """`NotStarted`, `Running`, `Succeeded`, `Failed` or `Canceled`; equal to the plain string."""
        return self.monitor.status

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL_STATUSES


class OperationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an operation."""

    position: int
    """Place among the operation's events, from 1."""
    name: str
    """`requested`, `started`, `progressed`, `attempt-failed`, `cancel-requested`, `succeeded`, `failed`, `canceled`."""
    time: datetime
    """When it was recorded, with its zone."""
    data: EventData | None
    """One of the structs of `opstream_schemas.events`; None for a type that this version does not know."""
    stored: bytes
    """The CloudEvent, JSON, as the journal holds it; a stream may bring its line ends changed."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self.name in TERMINAL_EVENTS


def parse_event(stored: bytes) -> OperationEvent:
    """The event in the bytes of a CloudEvent.

    Raises:
        opstream_schemas.errors.InvalidEvent: they hold none.
    """
    event = decode_event(stored, 0)  # the service does not tell stream sequences, and nothing here needs them
    known = _TYPE.fullmatch(event.type)
    name = known[1] if known else event.type
    return OperationEvent(position=event.position, name=name, time=event.time, data=event.data, stored=stored)
