"""The events of an operation and their wire form: CloudEvents 1.0, JSON, structured mode.

An `Event` is decided but not stored yet. A `RecordedEvent` comes from the journal, with its stream sequence and its
stored bytes. The envelope is decoded before the data, so an event of an unknown type can be read
(`RecordedEvent.data is None`): readers skip it, deciders refuse it (`operation/fold.py`).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from .bulk.records import Authority, BulkProgress
from .errors import InvalidEvent
from .event_types.base import EventData, ForcedEnd, Instant, NonEmpty, OperationError, Trace
from .event_types.children import ChildWait, ParentRef
from .event_types.claims import Attached, Attachment, check_document, check_uploads
from .event_types.clean_up import CleanUpBegun
from .event_types.outcomes import Canceled, Failed, Succeeded
from .event_types.signals import RefusedSignal, Signaled, SignalWait
from .event_types.steps import StepFailed, StepStarted, StepSucceeded
from .event_types.waits import WaitBegun
from .names import Kind, check_operation_id
from .payloads.payload_ref import PayloadRef
from .text import MAX_NESTING, check_json

__all__ = [
    "Attached",
    "Canceled",
    "ChildWait",
    "CleanUpBegun",
    "EventData",
    "Failed",
    "ForcedEnd",
    "Instant",
    "NonEmpty",
    "OperationError",
    "ParentRef",
    "RefusedSignal",
    "SignalWait",
    "Signaled",
    "StepFailed",
    "StepStarted",
    "StepSucceeded",
    "Succeeded",
    "Trace",
    "WaitBegun",
]
"""What other modules import from here although another one has it."""

CONTENT_TYPE: Final = "application/cloudevents+json"


class Requested(EventData, frozen=True, kw_only=True):
    """A client asked for the action. Always the first event, and the only one of its type."""

    name: ClassVar[str] = "requested"
    type: ClassVar[str] = "opstream.action.requested.v1"
    later_type: ClassVar[str] = "opstream.action.requested.v2"
    """Of a request with a start time. A process that does not know start times refuses it, and begins nothing
    (docs/adr/0061)."""
    claim_type: ClassVar[str] = "opstream.action.requested.v3"
    """Of a request whose input is a payload, with a start time or without. A process that knows no payloads refuses it,
    and begins nothing (docs/adr/0075)."""
    uploads_type: ClassVar[str] = "opstream.action.requested.v4"
    """Of a request with uploads, whatever else it has. A process that knows no uploads refuses it, so that no action
    runs without its files."""
    sealed_type: ClassVar[str] = "opstream.action.requested.v5"
    """Of a confidential operation. A process that can't open it refuses it likewise (docs/adr/0076)."""

    resource: str
    resource_id: str = ""
    action: str
    action_version: int
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """JSON; `UNSET` if it is a payload."""
    input_payload: PayloadRef | None = None
    """Where the input is, if it is too large for an event; None if it is here."""
    request_hash: str
    deadline: Instant
    retention: float
    """Seconds for which the status stays readable after the end."""
    retention_failed: float = 0.0
    retention_canceled: float = 0.0
    """The same for a failed and for a canceled operation; 0 means as `retention`."""
    hold: str = ""
    """Key of the resource lock that the operation needs to run (`subjects.lock_key`); empty for none."""
    caller: str = ""
    """Identity that the API, or a proxy that it trusts, has authenticated; empty for an anonymous caller."""
    client_id: str = ""
    """The caller's application, as the trusted proxy names it."""
    client_address: str = ""
    """IP address of the request; for the record only, no decision depends on it."""
    callback: str = ""
    """URL to which the outcome is delivered; empty for none."""
    tenant: str = ""
    """Of the caller; with `caller` it is the owner. Empty for the operator's own, and without authentication."""
    own_id: str = ""
    """The client's own id of the operation, from which the API derives the stored one (docs/adr/0046); empty without
    authentication: then both are the same."""
    trace: Trace | None = None
    start_at: Instant | None = None
    """No attempt begins before; None for a request that may begin at once. It may have passed at the request."""
    start_after: int = 0
    """The seconds from the request that the client asked for, from which `start_at` was computed; 0 if it gave the
    time itself, or none."""
    labels: dict[str, str] | None = None
    """The client's own words about the operation (`names.parse_labels`); nothing depends on them. None for none."""
    retry_of: str = ""
    """The client's id of the ended operation that this one does again (docs/adr/0063); empty for none."""
    authority: Authority | None = None
    """Of a bulk operation, with authentication: with which rights it acts. None for any other."""
    priority: str = ""
    """A `Priority`, for an action that has them (docs/adr/0072); empty for any other."""
    parent: ParentRef | None = None
    """Of a child: the operation whose action asked for it (docs/adr/0074). None for any other."""
    uploads: tuple[Attachment, ...] = ()
    """The files that the client has uploaded for it, each of another name."""
    confidential: bool = False
    """True if `input`, and what follows of the operation, is sealed by its key (docs/adr/0076). It has no uploads."""

    @property
    def wire_type(self) -> str:
        """Return the type of version 5 for a confidential operation, of version 4 for a request with uploads, of
        version 3 for another one whose input is a payload, of version 2 for another one with a start time, and of
        version 1 for any other."""
        if self.confidential:
            return self.sealed_type
        if self.uploads:
            return self.uploads_type
        if self.input_payload is not None:
            return self.claim_type
        return self.type if self.start_at is None else self.later_type


class Started(EventData, frozen=True, kw_only=True):
    """A runner began an attempt."""

    name: ClassVar[str] = "started"
    type: ClassVar[str] = "opstream.action.started.v1"

    attempt: int
    runner: str
    token: str
    """Random text that distinguishes this attempt from another one with the same number."""
    ticket: int
    """Stream sequence of the message that caused the attempt."""
    lease: float
    """Seconds; the consumer's ack_wait."""
    clean_up: bool = False
    """True if after a cancel attempts follow until the handler's clean-up has ended (docs/adr/0077)."""


class Progressed(EventData, frozen=True, kw_only=True):
    """The running attempt reported its progress."""

    name: ClassVar[str] = "progressed"
    type: ClassVar[str] = "opstream.action.progressed.v1"

    percent: float
    message: str = ""
    bulk: BulkProgress | None = None
    """Of a bulk operation: how far it is, and what became of the items since the event before. None for any other."""


class AttemptFailed(EventData, frozen=True, kw_only=True):
    """An attempt ended without an outcome; another follows at `retry_at`."""

    name: ClassVar[str] = "attempt-failed"
    type: ClassVar[str] = "opstream.action.attempt-failed.v1"

    attempt: int
    error: OperationError
    retry_at: Instant
    counted: bool
    """True if the attempt counts towards the action's `max_attempts`."""


class CancelRequested(EventData, frozen=True, kw_only=True):
    """A client asked the running operation to stop."""

    name: ClassVar[str] = "cancel-requested"
    type: ClassVar[str] = "opstream.action.cancel-requested.v1"

    by: str = ""
    reason: str = ""


EVENT_DATA: Final[tuple[type[EventData], ...]] = (
    Requested,
    Started,
    Progressed,
    StepStarted,
    StepSucceeded,
    StepFailed,
    WaitBegun,
    Signaled,
    Attached,
    AttemptFailed,
    CancelRequested,
    CleanUpBegun,
    Succeeded,
    Failed,
    Canceled,
)
EVENT_TYPES: Final[dict[str, type[EventData]]] = {data.type: data for data in EVENT_DATA} | {
    Requested.later_type: Requested,
    Requested.claim_type: Requested,
    Requested.uploads_type: Requested,
    StepSucceeded.claim_type: StepSucceeded,
    Requested.sealed_type: Requested,
    Succeeded.claim_type: Succeeded,
}
"""The data of each CloudEvents type."""
_DECODERS: Final = {name: msgspec.json.Decoder(data) for name, data in EVENT_TYPES.items()}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was decided and is not stored yet."""

    id: str
    source: str
    operation_id: str
    time: Instant
    position: int
    """Position among the events of the operation, from 1."""
    previous_hash: str
    """SHA-256 (hex) of the stored bytes of the event before it; empty for the first."""
    data: EventData


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the journal stores."""

    id: str
    source: str
    type: str
    operation_id: str
    time: Instant
    position: int
    previous_hash: str
    data: EventData | None
    """None if this version does not know the type."""
    sequence: int
    """Stream sequence in OPERATIONS."""
    stored: bytes
    """The bytes that the journal stores."""
    subject: str = ""
    """Where it is stored in OPERATIONS, which the fold compares with its operation; empty for a copy from the archive
    or from the API."""

    @property
    def digest(self) -> str:
        """Return the SHA-256 (hex) of the stored bytes, which is the next event's `previous_hash`."""
        return digest(self.stored)


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The CloudEvents 1.0 envelope, with the extensions `position` and `previoushash`; the limits are its own."""

    specversion: Literal["1.0"]
    id: NonEmpty
    source: NonEmpty
    type: NonEmpty
    subject: str
    time: Instant
    datacontenttype: Literal["application/json"] = "application/json"
    position: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    previoushash: str
    data: msgspec.Raw


_encoder: Final = msgspec.json.Encoder()
_envelope: Final = msgspec.json.Decoder(CloudEvent)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNDECODABLE: Final = (msgspec.MsgspecError, RecursionError, ValueError)


def encode_event(event: Event) -> bytes:
    """Return the bytes to store for an event. The same event always gives the same bytes.

    Raises:
        InvalidEvent: the bytes could not be decoded again (NaN, a time without zone, broken or too deeply nested
            JSON). The journal deletes nothing, so such bytes would block the operation for ever.
    """
    try:
        payload = _encoder.encode(
            CloudEvent(
                specversion="1.0",
                id=event.id,
                source=event.source,
                type=event.data.wire_type,
                subject=event.operation_id,
                time=event.time,
                position=event.position,
                previoushash=event.previous_hash,
                data=msgspec.Raw(_encoder.encode(event.data)),
            )
        )
        _decode(payload)
    except _UNDECODABLE as error:
        raise InvalidEvent(f"{event.data.wire_type} can't be recorded for {event.operation_id}: {error}") from error
    return payload


def decode_event(payload: bytes, sequence: int, subject: str = "") -> RecordedEvent:
    """Decode the bytes that the journal stores at a stream sequence.

    Args:
        payload: the bytes.
        sequence: where they are stored.
        subject: on which subject of OPERATIONS; empty if they come from elsewhere.

    Raises:
        InvalidEvent: they are not a CloudEvent of opstream, or the data of a known type can't be decoded.
    """
    try:
        envelope, data = _decode(payload)
    except _UNDECODABLE as error:
        raise InvalidEvent(f"message {sequence} of the journal is not an opstream event: {error}") from error
    return RecordedEvent(
        id=envelope.id,
        source=envelope.source,
        type=envelope.type,
        operation_id=envelope.subject,
        time=envelope.time,
        position=envelope.position,
        previous_hash=envelope.previoushash,
        data=data,
        sequence=sequence,
        stored=payload,
        subject=subject,
    )


def _decode(payload: bytes) -> tuple[CloudEvent, EventData | None]:
    check_json(payload, MAX_NESTING + 2)  # envelope and data hold the input or result
    envelope = _envelope.decode(payload)
    check_operation_id(envelope.subject)
    data = _DECODERS[envelope.type].decode(envelope.data) if envelope.type in _DECODERS else None
    if isinstance(data, Requested):
        Kind.parse(f"{data.resource}:{data.action}")  # subjects are built from it
        if data.confidential is not (envelope.type == data.sealed_type):
            raise ValueError(f"type {envelope.type} can't have confidential={data.confidential}")
        has_uploads = envelope.type == data.uploads_type
        is_free = has_uploads or data.confidential
        is_claim = data.input_payload is not None if is_free else envelope.type == data.claim_type
        check_document(data.input, data.input_payload, is_claim=is_claim)
        check_uploads(data.uploads, has_some=has_uploads)
    elif isinstance(data, Succeeded | StepSucceeded):
        check_document(data.result, data.result_payload, is_claim=envelope.type == data.claim_type)
    return envelope, data


def digest(payload: bytes) -> str:
    """Return the SHA-256 in hex: the hash that chains the events of an operation."""
    return hashlib.sha256(payload).hexdigest()


def with_own_id(stored: bytes, operation_id: str, own_id: str) -> bytes:
    """Return a stored event as its client may read it: with the client's own id as its subject.

    These are not the bytes of the hash chain any more. They are the stored ones for an operation without an own id.

    Args:
        stored: as the journal has it.
        operation_id: the id under which the operation is stored.
        own_id: the client's own; empty if there is none.
    """
    if not own_id:
        return stored
    # The envelope's member comes before the data, and in a text of JSON its quotes would be escaped.
    head, found, tail = stored.partition(b'"subject":"%s"' % operation_id.encode())
    if found:
        return b'%s"subject":"%s"%s' % (head, own_id.encode(), tail)
    envelope = _members.decode(stored)  # another writer's spelling of JSON
    return _encoder.encode({**envelope, "subject": msgspec.Raw(_encoder.encode(own_id))})


def recorded_event(event: Event, payload: bytes, sequence: int, subject: str = "") -> RecordedEvent:
    """Return what `decode_event(payload, sequence, subject)` would return for an event that was just stored."""
    return RecordedEvent(
        id=event.id,
        source=event.source,
        type=event.data.wire_type,
        operation_id=event.operation_id,
        time=event.time,
        position=event.position,
        previous_hash=event.previous_hash,
        data=event.data,
        sequence=sequence,
        stored=payload,
        subject=subject,
    )
