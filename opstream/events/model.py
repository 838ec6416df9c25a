"""The events that a handler gets: one frozen struct for each type, decoded from the CloudEvent in the journal.

Pure, except for the methods that settle an event through its `delivery`. A test of a handler can construct events: all
fields but the identifying ones have defaults.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final, TypeVar, overload

import msgspec

from opstream_schemas import events as wire
from opstream_schemas.events import OperationError
from opstream_schemas.names import Kind
from opstream_schemas.payloads.payload_ref import PayloadRef

from .errors import UnexpectedShape
from .settlement import Settlement

T = TypeVar("T")
E = TypeVar("E", bound="Event")

JSON_NULL: Final = msgspec.Raw(b"null")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of all events."""

    name: ClassVar[str] = ""
    """The last token of the subject."""

    operation_id: str
    resource: str
    action: str
    time: datetime
    """By the clock of the process that recorded it."""
    resource_id: str = ""
    """The resource's own id. Only `requested` has it; for other events use `await event.requested()`."""
    id: str = ""
    """The event's id, the same for each delivery."""
    source: str = ""
    position: int = 0
    """Number of the event within its operation, from 1."""
    sequence: int = 0
    """Stream sequence in OPERATIONS: increases from event to event, with gaps."""
    deliveries: int = 1
    """Number of this delivery, from 1."""
    stored: bytes = b""
    """The CloudEvent, as the journal holds it."""
    delivery: Settlement | None = None
    """Settles the event; None for an event that no broker delivered."""

    @property
    def kind(self) -> str:
        """The action with its resource, `book:upload-start`."""
        return f"{self.resource}:{self.action}"

    async def ack(self) -> None:
        """Acknowledge the event: it is not redelivered."""
        if self.delivery is not None:
            await self.delivery.ack()

    async def nak(self, delay: float | None = None) -> None:
        """Have the event redelivered after `delay` seconds, by default after the subscription's backoff."""
        if self.delivery is not None:
            await self.delivery.nak(delay)

    async def park(self, detail: str = "") -> None:
        """Park the event as a dead letter; an operator can retry it."""
        if self.delivery is not None:
            await self.delivery.park("Rejected", detail)

    async def in_progress(self) -> None:
        """Report that work on the event continues. Needed only in manual mode, after the handler has returned."""
        if self.delivery is not None:
            await self.delivery.in_progress()

    async def requested(self) -> ActionRequested | None:
        """The operation's request: its input, the resource's own id, the caller. None if it has expired.

        Raises:
            JournalUnavailable: the broker did not answer.
        """
        found = None if self.delivery is None else await self.delivery.find_request()
        if found is None or not isinstance(found.data, wire.Requested):
            return None
        return build_event(found, found.data, Kind(self.resource, self.action), 1, None, ActionRequested)


class ActionRequested(Event, frozen=True, kw_only=True):
    """A client submitted the action."""

    name: ClassVar[str] = "requested"

    action_version: int = 1
    input: msgspec.Raw = JSON_NULL
    """JSON; `null` if it is a payload."""
    input_payload: PayloadRef | None = None
    """Where the input is, if it is too large for an event: `GET /status/{id}/payloads/{last part of its uri}`."""
    deadline: datetime | None = None
    start_at: datetime | None = None
    """The time before which it does not begin; None for an operation that may begin at once."""
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
            UnexpectedShape: it is not of that type, or it is a payload (`input_payload`).
        """
        return _decode_as(self.input, type, self, self.input_payload)


class ActionStarted(Event, frozen=True, kw_only=True):
    """A runner started an attempt."""

    name: ClassVar[str] = "started"

    attempt: int = 1
    runner: str = ""


class ActionProgressed(Event, frozen=True, kw_only=True):
    """The running attempt reported progress."""

    name: ClassVar[str] = "progressed"

    percent: float = 0.0
    message: str = ""


class ActionStepStarted(Event, frozen=True, kw_only=True):
    """A step that must run at most once is about to begin."""

    name: ClassVar[str] = "step-started"

    attempt: int = 1
    step: str = ""
    """The name that the action gives it."""
    key: str = ""
    """Which of several of that name; empty for the only one."""
    input_hash: str = ""
    """SHA-256 (hex) of the JSON of its arguments."""


class ActionStepSucceeded(Event, frozen=True, kw_only=True):
    """A step of the running attempt returned. Later attempts get its result."""

    name: ClassVar[str] = "step-succeeded"

    attempt: int = 1
    step: str = ""
    key: str = ""
    input_hash: str = ""
    result: msgspec.Raw = JSON_NULL
    """JSON; `null` if it is a payload."""
    result_payload: PayloadRef | None = None
    """Where the result is, as of `ActionSucceeded`."""
    seconds: float = 0.0
    """How long its last try took."""
    tries: int = 1

    @overload
    def result_as(self, type: type[T]) -> T: ...
    @overload
    def result_as(self, type: object) -> Any: ...  # noqa: ANN401 - a union, which has no `type[T]`
    def result_as(self, type: Any) -> Any:  # noqa: A002 - as msgspec calls it
        """The result, decoded as a type that msgspec knows.

        Raises:
            UnexpectedShape: it is not of that type, or it is a payload (`result_payload`).
        """
        return _decode_as(self.result, type, self, self.result_payload)


class ActionStepFailed(Event, frozen=True, kw_only=True):
    """A step raised an error, in its last try."""

    name: ClassVar[str] = "step-failed"

    attempt: int = 1
    step: str = ""
    key: str = ""
    input_hash: str = ""
    error: OperationError
    seconds: float = 0.0
    tries: int = 1


class ActionWaiting(Event, frozen=True, kw_only=True):
    """An attempt ended, because its action waits; the next one goes on behind the wait."""

    name: ClassVar[str] = "waiting"

    attempt: int = 1
    wait: str = ""
    """The name that the action gives it."""
    key: str = ""
    until: datetime | None = None
    """When it is over; None for a wait that ends otherwise."""
    hold: bool = False
    """True if the operation keeps its exclusive resource meanwhile."""
    signal: wire.SignalWait | None = None
    """Of a wait for a signal, whose name is `wait`: its schema, and who may send it."""
    refused: tuple[wire.RefusedSignal, ...] = ()
    """Signals of the name that came before, and don't fit."""


class ActionAttached(Event, frozen=True, kw_only=True):
    """The running attempt added a file to the operation: `GET /status/{id}` says where it is."""

    name: ClassVar[str] = "attached"

    attempt: int = 1
    file_name: str = ""
    media_type: str = ""
    payload: PayloadRef | None = None
    """Its size and SHA-256; None in an event that a test made."""


class ActionCleaningUp(Event, frozen=True, kw_only=True):
    """The running attempt cancels its handler. What is recorded from here on is part of the clean-up."""

    name: ClassVar[str] = "cleaning-up"

    attempt: int = 1


class ActionAttemptFailed(Event, frozen=True, kw_only=True):
    """An attempt ended without an outcome; the next follows at `retry_at`."""

    name: ClassVar[str] = "attempt-failed"

    attempt: int = 1
    error: OperationError
    retry_at: datetime | None = None
    counted: bool = True


class ActionSignaled(Event, frozen=True, kw_only=True):
    """A client sent a signal to the operation."""

    name: ClassVar[str] = "signaled"

    signal: str = ""
    """The name of the signal."""
    payload: msgspec.Raw = JSON_NULL
    by: str = ""
    """Who sent it; empty for an unknown sender."""
    via: str = ""
    """`url` if it came by the URL of the wait."""
    request_id: str = ""
    """The same for a repeated request; empty if its sender did not name it."""
    request_hash: str = ""

    @overload
    def payload_as(self, type: type[T]) -> T: ...
    @overload
    def payload_as(self, type: object) -> Any: ...  # noqa: ANN401 - a union, which has no `type[T]`
    def payload_as(self, type: Any) -> Any:  # noqa: A002 - as msgspec calls it
        """The payload, decoded as a type that msgspec knows.

        Raises:
            UnexpectedShape: it is not of that type.
        """
        return _decode_as(self.payload, type, self, None)


class ActionCancelRequested(Event, frozen=True, kw_only=True):
    """A client asked the running operation to stop."""

    name: ClassVar[str] = "cancel-requested"

    by: str = ""
    reason: str = ""


class ActionSucceeded(Event, frozen=True, kw_only=True):
    """The end: the action returned."""

    name: ClassVar[str] = "succeeded"

    result: msgspec.Raw = JSON_NULL
    """JSON; `null` if it is a payload."""
    result_payload: PayloadRef | None = None
    """Where the result is, if it is too large for an event: `GET /status/{id}` has it."""

    @overload
    def result_as(self, type: type[T]) -> T: ...
    @overload
    def result_as(self, type: object) -> Any: ...  # noqa: ANN401 - a union, which has no `type[T]`
    def result_as(self, type: Any) -> Any:  # noqa: A002 - as msgspec calls it
        """The result, decoded as a type that msgspec knows.

        Raises:
            UnexpectedShape: it is not of that type, or it is a payload (`result_payload`).
        """
        return _decode_as(self.result, type, self, self.result_payload)


class ActionFailed(Event, frozen=True, kw_only=True):
    """The end: the action failed, or its retries or its deadline ran out."""

    name: ClassVar[str] = "failed"

    error: OperationError


class ActionCanceled(Event, frozen=True, kw_only=True):
    """The end: the action stopped after a client's cancel request."""

    name: ClassVar[str] = "canceled"

    reason: str = ""


CLASS_OF_DATA: Final[dict[type[wire.EventData], type[Event]]] = {
    wire.Requested: ActionRequested,
    wire.Started: ActionStarted,
    wire.Progressed: ActionProgressed,
    wire.StepStarted: ActionStepStarted,
    wire.StepSucceeded: ActionStepSucceeded,
    wire.StepFailed: ActionStepFailed,
    wire.WaitBegun: ActionWaiting,
    wire.Signaled: ActionSignaled,
    wire.Attached: ActionAttached,
    wire.AttemptFailed: ActionAttemptFailed,
    wire.CancelRequested: ActionCancelRequested,
    wire.CleanUpBegun: ActionCleaningUp,
    wire.Succeeded: ActionSucceeded,
    wire.Failed: ActionFailed,
    wire.Canceled: ActionCanceled,
}
"""By the data of the stored event."""
EVENT_CLASSES: Final = {one.name: one for one in CLASS_OF_DATA.values()}
"""By the event name that subjects and `subscribe` use."""
COMPLETIONS: Final = tuple(one.name for one in (ActionSucceeded, ActionFailed, ActionCanceled))


def build_event(
    found: wire.RecordedEvent,
    data: wire.EventData,
    kind: Kind,
    deliveries: int,
    delivery: Settlement | None,
    type_: type[E],
) -> E:
    """Return what a subscriber has of a stored event."""
    names = set(type_.__struct_fields__)
    members = msgspec.structs.asdict(data).items()
    own = {name: value for name, value in members if name in names and value is not msgspec.UNSET}
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


def _decode_as(raw: msgspec.Raw, type_: type[T], event: Event, payload: PayloadRef | None) -> T:
    if payload is not None:
        raise UnexpectedShape(f"{event.name} of {event.operation_id} has {payload.size} bytes: ask the API for it")
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        shown = getattr(type_, "__name__", str(type_))
        raise UnexpectedShape(f"{event.name} of {event.operation_id} does not hold a {shown}: {error}") from error
