"""Every subject, stream and consumer name of opstream, built and parsed here and nowhere else.

The stream ARCHIVE holds the events of OPERATIONS on `archive.{resource}.{action}.{event}`: without the operation id,
which is in the event (CloudEvents `subject`): a broker keeps a few subjects in memory and not one for each event.

Tokens are checked when they enter the system (`names.py`); what is built from a checked token needs no second check.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from .errors import InvalidName
from .names import Kind, check_name, check_operation_id

OPERATIONS_STREAM: Final = "OPERATIONS"
TIMERS_STREAM: Final = "TIMERS"
ARCHIVE_STREAM: Final = "ARCHIVE"
VIEW_BUCKET: Final = "operations"
ACTIONS_BUCKET: Final = "actions"
HOLDS_BUCKET: Final = "holds"
PARKED_STREAM: Final = "PARKED"
PARKED_SUBJECTS: Final = "parked.*.*"
RUNNER_CONSUMER_PREFIX: Final = "runner_"
"""What the names of the runners' consumers begin with."""
PROJECTOR_CONSUMER: Final = "projector"
PROJECTOR_DUE_CONSUMER: Final = "projector_due"
PROJECTOR_DEADLINES_CONSUMER: Final = "projector_deadlines"
WEBHOOKS_STREAM: Final = "WEBHOOKS"
"""Deliveries that wait."""
DELIVERIES_STREAM: Final = "DELIVERIES"
"""What became of each attempt to deliver."""
WEBHOOKS_CONSUMER: Final = "webhooks"
"""On OPERATIONS: outcomes."""
WEBHOOKS_DUE_CONSUMER: Final = "webhooks_due"
"""On WEBHOOKS: deliveries to be tried now."""

WAKE_SOURCE: Final = "fire.>"
WAKE_DESTINATION: Final = "wake.>"
DUE_SOURCE: Final = "overdue.>"
DUE_DESTINATION: Final = "due.>"
TIMERS_SUBJECTS: Final = ("timers.>", WAKE_SOURCE, DUE_SOURCE)

WEBHOOKS_DUE_FILTER: Final = "webhooks.due.>"
WEBHOOKS_SUBJECTS: Final = ("webhooks.later.>", WEBHOOKS_DUE_FILTER)
DELIVERIES_SUBJECTS: Final = ("deliveries.*.*.*",)

ARCHIVE_SOURCE: Final = "operations.*.*.*.*"
"""What is copied: every event, and neither wakes nor deadlines."""
ARCHIVE_DESTINATION: Final = "archive.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}"
"""Where to (NATS subject mapping)."""
ARCHIVE_SOURCE_HEADER: Final = "Nats-Stream-Source"
"""The header that the broker adds to what it copies."""

_EVENT_TOKENS: Final = 5
_WAKE_TOKENS: Final = 5
_DUE_TOKENS: Final = 4
_ARCHIVE_TOKENS: Final = 4
_SOURCE_TOKENS: Final = 5
_DEADLINE: Final = "deadline"


class EventSubject(msgspec.Struct, frozen=True):
    """A parsed event subject."""

    operation_id: str
    kind: Kind
    event: str


class WakeSubject(msgspec.Struct, frozen=True):
    """A parsed wake subject."""

    operation_id: str
    kind: Kind
    reason: str


class ArchiveSubject(msgspec.Struct, frozen=True):
    """A parsed subject of the archive."""

    kind: Kind
    event: str


class ArchiveOrigin(msgspec.Struct, frozen=True):
    """Where the broker copied an event from."""

    sequence: int
    """Stream sequence in OPERATIONS."""
    subject: str
    """In OPERATIONS, so with the operation id (`subjects.parse_event_subject`)."""


def event_type_subject(event: str) -> str:
    """What the stream OPERATIONS listens to for one event type (`operations.*.*.*.succeeded`)."""
    return f"operations.*.*.*.{event}"


def event_subject(operation_id: str, kind: Kind, event: str) -> str:
    """Where one event of an operation is published."""
    return f"operations.{operation_id}.{kind.resource}.{kind.action}.{event}"


def operation_filter(operation_id: str) -> str:
    """An operation's whole life. Also *the* filter of every guarded append: on a replicated stream the in-flight
    check is keyed by this very string, so no other spelling may guard an append (docs/nats.md, Appends)."""
    return f"operations.{operation_id}.>"


def action_events_filter(kind: Kind, event: str) -> str:
    """One event type of one action, of every operation."""
    return f"operations.*.{kind.resource}.{kind.action}.{event}"


def events_filter(operation_id: str, resource: str, action: str, event: str) -> str:
    """Some events of the stream OPERATIONS; `*` for any."""
    return f"operations.{operation_id}.{resource}.{action}.{event}"


def runner_consumer(kind: Kind) -> str:
    """The durable consumer on which the runners of an action compete; `_` is in no name, so pairs can't collide."""
    return f"{RUNNER_CONSUMER_PREFIX}{kind.resource}_{kind.action}"


def runner_filters(kind: Kind) -> tuple[str, str]:
    """What the consumer of an action delivers: its requests and its wakes."""
    return (action_events_filter(kind, "requested"), f"wake.{kind.resource}.{kind.action}.*.*")


def timer_subject(kind: Kind, operation_id: str, why: str) -> str:
    """Where the schedule of one wake is stored; publishing again replaces it."""
    return f"timers.{kind.resource}.{kind.action}.{operation_id}.{why}"


def fired_wake_subject(kind: Kind, operation_id: str, why: str) -> str:
    """Where a schedule fires inside the stream TIMERS; OPERATIONS sources it as a wake."""
    return f"fire.{kind.resource}.{kind.action}.{operation_id}.{why}"


def deadline_subject(kind: Kind, operation_id: str) -> str:
    """Where the schedule of an operation's deadline is stored."""
    return timer_subject(kind, operation_id, _DEADLINE)


def fired_deadline_subject(kind: Kind, operation_id: str) -> str:
    """Where a deadline fires inside the stream TIMERS; OPERATIONS sources it as due."""
    return f"overdue.{kind.resource}.{kind.action}.{operation_id}"


def operation_timers_filter(operation_id: str) -> str:
    """Everything that is armed for an operation."""
    return f"timers.*.*.{operation_id}.>"


def webhook_due_subject(endpoint: str, operation_id: str) -> str:
    """Where a delivery is published that is to be tried now, and where its schedule fires."""
    return f"webhooks.due.{endpoint}.{operation_id}"


def webhook_later_subject(endpoint: str, operation_id: str) -> str:
    """Where the schedule of a delivery's next attempt is stored; publishing again replaces it."""
    return f"webhooks.later.{endpoint}.{operation_id}"


def delivery_record_subject(operation_id: str, endpoint: str, outcome: str) -> str:
    """Where an attempt to deliver is recorded."""
    return f"deliveries.{operation_id}.{endpoint}.{outcome}"


def delivery_records_filter(operation_id: str = "*", endpoint: str = "*", outcome: str = "*") -> str:
    """Records of attempts: of an operation, an endpoint, an outcome."""
    return delivery_record_subject(operation_id, endpoint, outcome)


def lock_key(scope: str, resource_id: str) -> str:
    """The key of a hold in the bucket `holds`: what excludes (`ActionSpec.scope`), and which resource, hashed, since a
    resource's own id may be any text."""
    return f"{scope}.{hashlib.sha256(resource_id.encode()).hexdigest()[:32]}"


def action_key(kind: Kind) -> str:
    """The key of an action in the bucket `actions`."""
    return f"{kind.resource}.{kind.action}"


def bucket_stream(bucket: str) -> str:
    """The stream behind a key-value bucket (NATS ADR-8)."""
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """The subject of a key of a key-value bucket (NATS ADR-8)."""
    return f"$KV.{bucket}.{key}"


def is_wake(subject: str) -> bool:
    """Whether a delivered message is a wake rather than an event."""
    return subject.startswith("wake.")


def parse_event_subject(subject: str) -> EventSubject:
    """Parse `operations.{id}.{resource}.{action}.{event}`.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _EVENT_TOKENS or tokens[0] != "operations":
        raise InvalidName(f"{subject!r} is not an event subject: operations.ID.RESOURCE.ACTION.EVENT")
    _, operation_id, resource, action, event = tokens
    kind = Kind(check_name(resource, "resource"), check_name(action, "action"))
    return EventSubject(check_operation_id(operation_id), kind, check_name(event, "event"))


def parse_due_subject(subject: str) -> tuple[Kind, str]:
    """Parse `due.{resource}.{action}.{id}`: the action and the operation id.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _DUE_TOKENS or tokens[0] != "due":
        raise InvalidName(f"{subject!r} is not a deadline's subject: due.RESOURCE.ACTION.ID")
    _, resource, action, operation_id = tokens
    return Kind(check_name(resource, "resource"), check_name(action, "action")), check_operation_id(operation_id)


def parse_wake_subject(subject: str) -> WakeSubject:
    """Parse `wake.{resource}.{action}.{id}.{why}`.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _WAKE_TOKENS or tokens[0] != "wake":
        raise InvalidName(f"{subject!r} is not a wake subject: wake.RESOURCE.ACTION.ID.WHY")
    _, resource, action, operation_id, why = tokens
    kind = Kind(check_name(resource, "resource"), check_name(action, "action"))
    return WakeSubject(check_operation_id(operation_id), kind, check_name(why, "wake reason"))


def dead_letter_subject(durable: str, sequence: int) -> str:
    """Where an event is parked that a subscriber could not handle; parking it again replaces it."""
    return f"parked.{durable}.{sequence}"


def dead_letters_filter(durable: str) -> str:
    """All that is parked of one subscriber."""
    return f"parked.{durable}.*"


def dead_letter_retry_subject(durable: str) -> str:
    """Where the processes of a subscriber are asked to try a parked event again; in no stream."""
    return f"retry.{durable}"


def archive_subject(kind: Kind, event: str) -> str:
    """Where the archive holds one event type of one action."""
    return f"archive.{kind.resource}.{kind.action}.{event}"


def archive_filter(resource: str = "*", action: str = "*", event: str = "*") -> str:
    """Events of the archive by resource, action and event type; whatever is left out may be anything."""
    return f"archive.{resource}.{action}.{event}"


def parse_archive_subject(subject: str) -> ArchiveSubject:
    """Parse `archive.{resource}.{action}.{event}`.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _ARCHIVE_TOKENS or tokens[0] != "archive":
        raise InvalidName(f"{subject!r} is not a subject of the archive: archive.RESOURCE.ACTION.EVENT")
    _, resource, action, event = tokens
    kind = Kind(check_name(resource, "resource"), check_name(action, "action"))
    return ArchiveSubject(kind, check_name(event, "event"))


def parse_archive_origin(header: str) -> ArchiveOrigin:
    """Parse the value of `Nats-Stream-Source` as nats-server 2.15 writes it: stream, sequence, filter, transform,
    subject, and a name of the copying itself, with a space between two of them.

    Raises:
        InvalidName: the value has another form, or names another stream.
    """
    parts = header.split(" ")
    if len(parts) < _SOURCE_TOKENS or parts[0] != OPERATIONS_STREAM or not (parts[1].isascii() and parts[1].isdigit()):
        raise InvalidName(f"{header!r} does not tell where in {OPERATIONS_STREAM} an event was copied from")
    return ArchiveOrigin(sequence=int(parts[1]), subject=parts[4])
