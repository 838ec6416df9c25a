"""An operation as the service last reported it, and its events. Pure."""

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
    """An operation as the service last reported it. Every call also takes its `id`, so that is enough to keep."""

    url: str
    """Of its status."""
    monitor: StatusMonitor
    """The whole status monitor."""

    @property
    def id(self) -> str:
        """The operation's id."""
        return self.monitor.id

    @property
    def status(self) -> Status:
        """`NotStarted`, `Running`, `Succeeded`, `Failed` or `Canceled`; equal to the plain string."""
        return self.monitor.status

    @property
    def is_terminal(self) -> bool:
        """True if the operation has ended."""
        return self.status in TERMINAL_STATUSES


class OperationPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of operations."""

    items: tuple[msgspec.Raw, ...]
    """Each as the service sent it: JSON."""
    next_query: str
    """The query of the next page, for `OperationsClient.page`; empty at the end."""
    lag: float | None
    """Seconds that the service's index may be behind; None if the service does not say."""


class Durations(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long operations took, from the beginning of their first attempt to their end. Seconds."""

    count: int
    """Of how many operations."""
    p50: float
    """Half of them took this long at most; right to 5 %."""
    p95: float
    """The same of 95 in 100."""
    max: float


class OperationGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The counted operations that have one value of a field."""

    key: str | None = None
    """The value; None for the operations without one."""
    count: int
    statuses: dict[str, int] = {}
    """The number by status; a status that none has is not there."""
    duration: Durations | None = None
    """None if none of them has begun and ended."""


class IncompleteCount(msgspec.Struct, frozen=True, kw_only=True, rename={"begin": "from"}):
    """A count that ended early: it has the operations whose time is this one or later."""

    field: str
    """Which time: `createdAt` or `finishedAt`."""
    begin: datetime


class OperationCount(msgspec.Struct, frozen=True, kw_only=True):
    """A count of operations."""

    count: int
    statuses: dict[str, int] = {}
    duration: Durations | None = None
    groups: int = 0
    """How many values the field has by which they were counted."""
    value: tuple[OperationGroup, ...] = ()
    """The most frequent of these values."""
    incomplete: IncompleteCount | None = None
    """None if all operations were counted."""


class BulkPreview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a bulk request would select."""

    count: int
    is_whole: bool
    """False if there are more, or not all could be counted."""
    sample: tuple[msgspec.Raw, ...]
    """The oldest of them, each as the service sent it: JSON."""


class OperationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an operation."""

    position: int
    """Number of the event within its operation, from 1."""
    name: str
    """`requested`, `started`, `progressed`, `step-started`, `step-succeeded`, `step-failed`, `waiting`, `signaled`,
    `attempt-failed`, `cancel-requested`, `cleaning-up`, `succeeded`, `failed`, `canceled`."""
    time: datetime
    """When it was recorded; with a time zone."""
    data: EventData | None
    """One of the structs of `opstream_schemas.events`; None for a type that this version does not know."""
    stored: bytes
    """The CloudEvent, JSON, as the journal holds it; a stream may change its line ends."""

    @property
    def is_terminal(self) -> bool:
        """True if no event follows."""
        return self.name in TERMINAL_EVENTS


class Upload(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file that was uploaded, for `submit(…, uploads=[…])`. It can be kept as JSON, by `msgspec.json.encode`."""

    operation_id: str
    """Of the operation that it is for: `submit` takes this id, and another file may be uploaded for it."""
    name: str
    """Under which the handler finds it."""
    media_type: str
    size: int
    """Bytes."""
    sha256: str
    """Of these bytes, in hex; the client has compared it."""
    claim: str
    """What the submit names. It is bound to the operation and the caller."""
    expires_at: datetime
    """Until when it may be submitted."""


def parse_event(stored: bytes) -> OperationEvent:
    """The event in the bytes of a CloudEvent.

    Raises:
        opstream_schemas.errors.InvalidEvent: the bytes hold no event.
    """
    event = decode_event(stored, 0)  # the service does not report stream sequences
    known = _TYPE.fullmatch(event.type)
    name = known[1] if known else event.type
    return OperationEvent(position=event.position, name=name, time=event.time, data=event.data, stored=stored)
