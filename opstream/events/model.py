"""The events as a handler gets them: one frozen struct for each type, decoded from the CloudEvent in the journal.

Pure, but for the calls that settle an event, which go to its `delivery`. Callers: handlers, and `subscriber.py`, which
makes them. A test of a handler makes them by itself: every field but the identity has a default.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final, Protocol, TypeVar, overload

import msgspec

from opstream_schemas import events as wire
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import OperationError
from opstream_schemas.names import Kind
from opstream_schemas.subjects import parse_event_subject

from .errors import UnexpectedShape, UnreadableEvent

T = TypeVar("T")
E = TypeVar("E", bound="Event")

JSON_NULL: Final = msgspec.Raw(b"null")


class Settlement(Protocol):
    """What becomes of a delivered event: the first of `ack`, `nak` and `park` counts."""

    @property
    def is_settled(self) -> bool:
        """Whether one of them was called."""
        ...

    async def ack(self) -> None:
        """Done."""
        ...

    async def nak(self, delay: float | None = None) -> None:
        """Once more, after `delay` seconds; None for the backoff of the subscription."""
        ...

    async def park(self, reason: str, detail: str = "") -> None:
        """No more, until an operator wants it."""
        ...

    async def in_progress(self) -> None:
        """The time after which it would be delivered again begins anew."""
        ...

    async def find_request(self) -> wire.RecordedEvent | None:
        """The event that began the operation, None if it has expired."""
        ...


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What all events have."""

    name: ClassVar[str] = ""
    """The last token of the subject."""

    operation_id: str
    resource: str
    action: str
    time: datetime
    """When it happened, by the clock of the process that recorded it."""
    resource_id: str = ""
    """The resource's own id; only `requested` carries it. For the others: `await event.requested()`."""
    id: str = ""
    """Of the event: what to know it by when it is delivered again."""
    source: str = ""
    position: int = 0
    """Place among the events of its operation, from 1."""
    sequence: int = 0
    """Stream sequence in OPERATIONS: grows from event to event, with gaps."""
    deliveries: int = 1
    """1 for the first."""
    stored: bytes = b""
    """The CloudEvent, as the journal holds it."""
    delivery: Settlement | None = None
    """What it is settled by; None for an event that nobody delivered."""

    @property
    def kind(self) -> str:
        """The action with its resource, `book:upload-start`."""
        return f"{self.resource}:{self.action}"

    async def ack(self) -> None:
        """Done: it is not delivered again."""
        if self.delivery is not None:
            await self.delivery.ack()

    async def nak(self, delay: float | None = None) -> None:
        """Deliver it once more, after `delay` seconds, or as the subscription's backoff says."""
        if self.delivery is not None:
            await self.delivery.nak(delay)

    async def park(self, detail: str = "") -> None:
        """Put it aside for an operator, who can have it tried again."""
        if self.delivery is not None:
            await self.delivery.park("Rejected", detail)

    async def in_progress(self) -> None:
        """Say that it is still worked at, in manual mode after the handler has returned."""
        if self.delivery is not None:
            await self.delivery.in_progress()

    async def requested(self) -> ActionRequested | None:
        """How the operation began: its input, the resource's own id, who asked. None once that has expired.

        Raises:
            JournalUnavailable: the broker did not answer.
        """
        found = None if self.delivery is None else await self.delivery.find_request()
        if found is None or not isinstance(found.data, wire.Requested):
            return None
        return _build_event(found, found.data, Kind(self.resource, self.action), 1, None, ActionRequested)


class ActionRequested(Event, frozen=True, kw_only=True):
    """A client asked for the action."""

    name: ClassVar[str] = "requested"

    action_version: int = 1
    input: msgspec.Raw = JSON_NULL
    deadline: datetime | None = None
    caller: str = ""
    client_id: str = ""
    client_address: str = ""

    @overload
    def input_as(self, type: type[T]) -> T: ...
    @overload
    def input_as(self, type: object) -> Any: ...  # noqa: ANN401 - a union, which has no `type[T]`
    def input_as(self, type: Any) -> Any:  # noqa: A002 - as msgspec calls it
        """The input, decoded as a type that msgspec knows.

        Raises:
            UnexpectedShape: it has another form.
        """
        return _decode_as(self.input, type, self)


class ActionStarted(Event, frozen=True, kw_only=True):
    """A runner began an attempt."""

    name: ClassVar[str] = "started"

    attempt: int = 1
    runner: str = ""


class ActionProgressed(Event, frozen=True, kw_only=True):
    """The running attempt told how far it is."""

    name: ClassVar[str] = "progressed"

    percent: float = 0.0
    message: str = ""


class ActionAttemptFailed(Event, frozen=True, kw_only=True):
    """An attempt ended without an outcome; another follows at `retry_at`."""

    name: ClassVar[str] = "attempt-failed"

    attempt: int = 1
    error: OperationError
    retry_at: datetime | None = None
    counted: bool = True


class ActionCancelRequested(Event, frozen=True, kw_only=True):
    """A client asked the running operation to stop."""

    name: ClassVar[str] = "cancel-requested"

    by: str = ""
    reason: str = ""


class ActionSucceeded(Event, frozen=True, kw_only=True):
    """The end: the action returned."""

    name: ClassVar[str] = "succeeded"

    result: msgspec.Raw = JSON_NULL

    @overload
    def result_as(self, type: type[T]) -> T: ...
    @overload
    def result_as(self, type: object) -> Any: ...  # noqa: ANN401 - a union, which has no `type[T]`
    def result_as(self, type: Any) -> Any:  # noqa: A002 - as msgspec calls it
        """The result, decoded as a type that msgspec knows.

        Raises:
            UnexpectedShape: it has another form.
        """
        return _decode_as(self.result, type, self)


class ActionFailed(Event, frozen=True, kw_only=True):
    """The end: the action failed, or was given up."""

    name: ClassVar[str] = "failed"

    error: OperationError


class ActionCanceled(Event, frozen=True, kw_only=True):
    """The end: nothing runs any more, as a client had asked."""

    name: ClassVar[str] = "canceled"

    reason: str = ""


_CLASS_OF_DATA: Final[dict[type[wire.EventData], type[Event]]] = {
    wire.Requested: ActionRequested,
    wire.Started: ActionStarted,
    wire.Progressed: ActionProgressed,
    wire.AttemptFailed: ActionAttemptFailed,
    wire.CancelRequested: ActionCancelRequested,
    wire.Succeeded: ActionSucceeded,
    wire.Failed: ActionFailed,
    wire.Canceled: ActionCanceled,
}
EVENT_CLASSES: Final = {one.name: one for one in _CLASS_OF_DATA.values()}
"""By the name that subjects and `subscribe` have for them."""
COMPLETIONS: Final = tuple(one.name for one in (ActionSucceeded, ActionFailed, ActionCanceled))


def read_event(subject: str, data: bytes, sequence: int, deliveries: int, delivery: Settlement | None) -> Event:
    """The event that a message holds.

    Raises:
        Unreadable: it holds none of this version, or not the one that its subject says.
    """
    try:
        place = parse_event_subject(subject)
        found = wire.decode_event(data, sequence)
    except (InvalidEvent, InvalidName) as error:
        raise UnreadableEvent("Undecodable", str(error)) from error
    if found.operation_id != place.operation_id:
        raise UnreadableEvent("Foreign", f"the event is of operation {found.operation_id}, its subject is {subject}")
    if found.data is None:
        raise UnreadableEvent("UnknownType", f"type {found.type} is not known to this version of opstream")
    if found.data.name != place.event:
        raise UnreadableEvent("Foreign", f"the event is of type {found.type}, its subject is {subject}")
    return _build_event(found, found.data, place.kind, deliveries, delivery, _CLASS_OF_DATA[type(found.data)])


def _build_event(
    found: wire.RecordedEvent,
    data: wire.EventData,
    kind: Kind,
    deliveries: int,
    delivery: Settlement | None,
    type_: type[E],
) -> E:
    names = set(type_.__struct_fields__)
    own = {name: value for name, value in msgspec.structs.asdict(data).items() if name in names}
    common: dict[str, Any] = {
        "operation_id": found.operation_id,
        "resource": kind.resource,
        "action": kind.action,
        "time": found.time,
        "id": found.id,
        "source": found.source,
        "position": found.position,
        "sequence": found.sequence,
        "deliveries": deliveries,
        "stored": found.stored,
        "delivery": delivery,
    }
    return type_(**(own | common))


def _decode_as(raw: msgspec.Raw, type_: type[T], event: Event) -> T:
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        shown = getattr(type_, "__name__", str(type_))
        raise UnexpectedShape(f"{event.name} of {event.operation_id} does not hold a {shown}: {error}") from error
