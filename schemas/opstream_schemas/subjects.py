"""The subjects, streams, buckets and consumers of opstream. No other module builds or parses a subject.

Names are checked where they enter the system (`names.py`). A subject that is built from checked names needs no check.
Those of copies in the stream ARCHIVE are in `integrity/archive_subjects.py`.
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
ACCESS_BUCKET: Final = "access"
"""API keys by their hashes, and the secret from which operation ids are derived (docs/adr/0046)."""
RUNNERS_BUCKET: Final = "runners"
"""Which runners are there: their presence records (docs/adr/0060)."""
CONTROLS_BUCKET: Final = "controls"
"""What operators decided about actions, by `action_key` (docs/adr/0064)."""
OPERATION_KEYS_BUCKET: Final = "operation_keys"
"""Keys of confidential operations, wrapped, by `operation_key` (docs/adr/0076). Never in a backup."""
CALLER_REQUESTS: Final = "callers.requests"
"""Core messages of API processes about the requests that have passed (docs/adr/0052). No stream stores them."""
PARKED_STREAM: Final = "PARKED"
PARKED_SUBJECTS: Final = "parked.*.*"
RUNNER_CONSUMER_PREFIX: Final = "runner_"
"""Prefix of the names of the runners' consumers."""
PROJECTOR_CONSUMER: Final = "projector"
PROJECTOR_DUE_CONSUMER: Final = "projector_due"
PROJECTOR_DEADLINES_CONSUMER: Final = "projector_deadlines"
WEBHOOKS_STREAM: Final = "WEBHOOKS"
"""Deliveries that wait to be sent."""
DELIVERIES_STREAM: Final = "DELIVERIES"
"""A record of each attempt to deliver."""
ACCESS_LOG_STREAM: Final = "ACCESS_LOG"
"""Requests that were denied, and acts of administrators (docs/adr/0053)."""
SCHEDULES_STREAM: Final = "SCHEDULES"
"""Schedules: what was decided about each, and what became of its moments (docs/adr/0061)."""
WEBHOOKS_CONSUMER: Final = "webhooks"
"""Consumer on OPERATIONS: outcomes."""
WEBHOOKS_DUE_CONSUMER: Final = "webhooks_due"
"""Consumer on WEBHOOKS: deliveries that are due."""

# A scheduled message fires on a source subject of TIMERS; OPERATIONS copies it to the destination subject.
WAKE_SOURCE: Final = "fire.>"
WAKE_DESTINATION: Final = "wake.>"
DUE_SOURCE: Final = "overdue.>"
DUE_DESTINATION: Final = "due.>"
DEADLINES_FILTER: Final = "timers.*.*.*.deadline"
"""Scheduled timers of deadlines."""
TIMERS_SUBJECTS: Final = ("timers.>", WAKE_SOURCE, DUE_SOURCE)

QUEUED_REASON: Final = "requested"
"""Why a wake-up is there that brings a request into the queue of its priority (docs/adr/0072)."""

WEBHOOKS_DUE_FILTER: Final = "webhooks.due.>"
REDELIVER_SUBJECT: Final = "redeliver"
"""Requests to a webhooks service: it sends a delivery again (`webhook_delivery.RedeliveryRequest`)."""
WEBHOOKS_SUBJECTS: Final = ("webhooks.later.>", WEBHOOKS_DUE_FILTER)
DELIVERIES_SUBJECTS: Final = ("deliveries.*.*.*",)
ACCESS_LOG_SUBJECTS: Final = ("access_log.denied.*", "access_log.act.*")
SCHEDULES_SUBJECTS: Final = ("schedules.*.changed", "schedules.*.occurred")

_EVENT_TOKENS: Final = 5
_WAKE_TOKENS: Final = 5
_PRIORITY_WAKE_TOKENS: Final = 6
_DUE_TOKENS: Final = 4
_ALIVE_TOKENS: Final = 4
_SCHEDULE_TOKENS: Final = 3
_DEADLINE: Final = "deadline"


class EventSubject(msgspec.Struct, frozen=True):
    """A parsed subject of an event."""

    operation_id: str
    kind: Kind
    event: str


class WakeSubject(msgspec.Struct, frozen=True):
    """A parsed subject of a wake-up timer that fired."""

    operation_id: str
    kind: Kind
    reason: str
    priority: str = ""
    """Of the queue that got it; empty for the one that each action has."""


def live_filter(stream: str) -> str:
    """Return the filter of what the broker republishes of a stream: `stored.OPERATIONS.` and the subject (ADR 0070)."""
    return f"stored.{stream}.>"


def event_type_subject(event: str) -> str:
    """Return the subject of one event type in the stream's configuration (`operations.*.*.*.succeeded`)."""
    return f"operations.*.*.*.{event}"


def event_subject(operation_id: str, kind: Kind, event: str) -> str:
    """Return the subject of one event of an operation."""
    return f"operations.{operation_id}.{kind.resource}.{kind.action}.{event}"


def operation_filter(operation_id: str) -> str:
    """Return the filter of all events of an operation, which every append also uses for its expected version.

    On a replicated stream the broker finds appends in flight by this very string, so no append may use another spelling
    of the filter (docs/nats.md, Appends).
    """
    return f"operations.{operation_id}.>"


def action_events_filter(kind: Kind, event: str) -> str:
    """Return the filter of one event type of one action, for all operations."""
    return f"operations.*.{kind.resource}.{kind.action}.{event}"


def events_filter(operation_id: str, resource: str, action: str, event: str) -> str:
    """Return a filter of the stream OPERATIONS; `*` stands for any value."""
    return f"operations.{operation_id}.{resource}.{action}.{event}"


def runner_consumer(kind: Kind, priority: str = "") -> str:
    """Return the name of a durable consumer that an action's runners share. No name has a `_`, so none collide.

    Args:
        kind: the action.
        priority: of the further consumer of an action with priorities; empty for the one that each action has.
    """
    name = f"{RUNNER_CONSUMER_PREFIX}{kind.resource}_{kind.action}"
    return f"{name}_{priority}" if priority else name


def parse_runner_consumer(name: str) -> tuple[Kind, str] | None:
    """Return the action of a consumer that runners share, and its priority (`runner_consumer`); None for another."""
    tokens = name.removeprefix(RUNNER_CONSUMER_PREFIX).split("_")
    if not name.startswith(RUNNER_CONSUMER_PREFIX) or len(tokens) not in {2, 3}:
        return None
    return Kind(tokens[0], tokens[1]), "".join(tokens[2:])


def runner_filters(kind: Kind) -> tuple[str, str]:
    """Return the filters of an action's consumer: its requests and its wake-up timers."""
    return (action_events_filter(kind, "requested"), f"wake.{kind.resource}.{kind.action}.*.*")


def priority_filter(kind: Kind, priority: str) -> str:
    """Return the filter of the further consumer of a priority: the wake-ups for its queue."""
    return f"wake.{kind.resource}.{kind.action}.*.*.{priority}"


def queued_request_subject(kind: Kind, operation_id: str, priority: str) -> str:
    """Return the subject of the wake-up that brings a request into the queue of its priority, in the journal."""
    return fired_wake_subject(kind, operation_id, QUEUED_REASON, priority).replace("fire.", "wake.", 1)


def timer_subject(kind: Kind, operation_id: str, reason: str) -> str:
    """Return the subject that stores one wake-up timer. Publishing to it again replaces the timer."""
    return f"timers.{kind.resource}.{kind.action}.{operation_id}.{reason}"


def fired_wake_subject(kind: Kind, operation_id: str, reason: str, priority: str = "") -> str:
    """Return the subject on which a wake-up timer fires in TIMERS. OPERATIONS copies it to `wake.>`.

    Args:
        kind: the action.
        operation_id: the operation.
        reason: why it is woken.
        priority: of the queue that gets it; empty for the one that each action has.
    """
    subject = f"fire.{kind.resource}.{kind.action}.{operation_id}.{reason}"
    return f"{subject}.{priority}" if priority else subject


def deadline_subject(kind: Kind, operation_id: str) -> str:
    """Return the subject that stores the timer of an operation's deadline."""
    return timer_subject(kind, operation_id, _DEADLINE)


def fired_deadline_subject(kind: Kind, operation_id: str) -> str:
    """Return the subject on which a deadline fires in TIMERS. OPERATIONS copies it to `due.>`."""
    return f"overdue.{kind.resource}.{kind.action}.{operation_id}"


def operation_timers_filter(operation_id: str) -> str:
    """Return the filter of all scheduled timers of an operation."""
    return f"timers.*.*.{operation_id}.>"


def fired_messages_filters(kind: Kind, operation_id: str) -> tuple[str, str]:
    """Return the filters of what has fired for an operation, in the journal: its wake-ups, and its deadline."""
    return f"wake.{kind.resource}.{kind.action}.{operation_id}.>", f"due.{kind.resource}.{kind.action}.{operation_id}"


def parse_timer_subject(subject: str) -> tuple[str, str]:
    """Parse `timers.{resource}.{action}.{id}.{why}` into the operation id and the reason; empty for another form."""
    tokens = subject.split(".")
    return (tokens[3], tokens[4]) if len(tokens) == _WAKE_TOKENS and tokens[0] == "timers" else ("", "")


def is_deadline(reason: str) -> bool:
    """Return True if a timer's reason says that it is a deadline, not a wake-up."""
    return reason == _DEADLINE


def webhook_due_subject(endpoint: str, operation_id: str) -> str:
    """Return the subject of a delivery that is due, on which a scheduled one also fires."""
    return f"webhooks.due.{endpoint}.{operation_id}"


def webhook_later_subject(endpoint: str, operation_id: str) -> str:
    """Return the subject that schedules a delivery's next attempt. Publishing to it again replaces the schedule."""
    return f"webhooks.later.{endpoint}.{operation_id}"


def delivery_record_subject(operation_id: str, endpoint: str, outcome: str) -> str:
    """Return the subject of the record of one attempt to deliver."""
    return f"deliveries.{operation_id}.{endpoint}.{outcome}"


def delivery_records_filter(operation_id: str = "*", endpoint: str = "*", outcome: str = "*") -> str:
    """Return the filter of the records of some attempts to deliver; `*` stands for any value."""
    return delivery_record_subject(operation_id, endpoint, outcome)


def denial_subject(*, is_proven: bool) -> str:
    """Return the subject of records of denials: of callers that proved who they are, or of strangers.

    Each has a limit of its own, so that strangers can't push out what the others are about.
    """
    return f"access_log.denied.{'caller' if is_proven else 'stranger'}"


def act_subject(act: str) -> str:
    """Return the subject of the records of one kind of acts of administrators (`AdminAct`)."""
    return f"access_log.act.{act}"


def schedule_subject(schedule_key: str, schedule_event: str) -> str:
    """Return the subject of decisions about a schedule (`changed`), or of what became of its moments (`occurred`)."""
    return f"schedules.{schedule_key}.{schedule_event}"


def parse_schedule_subject(subject: str) -> str:
    """Return the key of the schedule that `schedules.{key}.{event}` is about; empty for another form."""
    tokens = subject.split(".")
    return tokens[1] if len(tokens) == _SCHEDULE_TOKENS and tokens[0] == "schedules" else ""


def lock_key(scope: str, resource_id: str, tenant: str = "") -> str:
    """Return the key of a resource lock in the bucket `holds`.

    Args:
        scope: the actions that share the lock (`ActionSpec.lock_scope`).
        resource_id: the resource's own id. It is hashed, because it may be any text.
        tenant: whose resource it is; the resources of two tenants are different ones, also with the same id.
    """
    # No resource id has a '/', so no two pairs are one text, and none is the text of a resource without a tenant.
    resource = f"{tenant}/{resource_id}" if tenant else resource_id
    return f"{scope}.{hashlib.sha256(resource.encode()).hexdigest()[:32]}"


def access_key(key_id: str) -> str:
    """Return the key of an API key's record in the bucket `access`."""
    return f"key.{key_id}"


def action_key(kind: Kind) -> str:
    """Return the key of an action in the bucket `actions`."""
    return f"{kind.resource}.{kind.action}"


def presence_key(kind: Kind, runner: str) -> str:
    """Return the key of the record of one runner of an action in the bucket `runners`. Its name is one token."""
    return f"{action_key(kind)}.alive.{runner}"


def last_presence_key(kind: Kind) -> str:
    """Return the key in the bucket `runners` that stays: when a runner of an action was there last."""
    return f"{action_key(kind)}.seen"


def presence_filter(kind: Kind) -> str:
    """Return the filter of all records about the runners of an action in the stream of the bucket `runners`."""
    return bucket_subject(RUNNERS_BUCKET, f"{action_key(kind)}.>")


def parse_presence_subject(subject: str) -> tuple[Kind, bool]:
    """Parse the subject of a record into the action, and whether it is that of a runner, not of the last one.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.removeprefix(bucket_subject(RUNNERS_BUCKET, "")).split(".")
    if not (len(tokens) == _ALIVE_TOKENS and tokens[2] == "alive") and tokens[2:] != ["seen"]:
        raise InvalidName(f"{subject!r} is not the subject of a record about runners")
    return Kind(check_name(tokens[0], "resource"), check_name(tokens[1], "action")), len(tokens) == _ALIVE_TOKENS


def bucket_stream(bucket: str) -> str:
    """Return the name of the stream behind a key-value bucket (NATS ADR-8)."""
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """Return the subject of a key in a key-value bucket (NATS ADR-8)."""
    return f"$KV.{bucket}.{key}"


def operation_key(kind: Kind, operation_id: str) -> str:
    """Return the name of an operation's key in its bucket. By the action in it a runner may read those of its own."""
    return f"{kind.resource}.{kind.action}.{operation_id}"


def parse_operation_key(name: str) -> tuple[Kind, str]:
    """Parse `operation_key` into the action and the operation id.

    Raises:
        InvalidName: the name has another form.
    """
    resource, action, operation_id = (*name.split(".", 2), "", "")[:3]
    return Kind(check_name(resource, "resource"), check_name(action, "action")), check_operation_id(operation_id)


def is_wake(subject: str) -> bool:
    """Return True if a delivered message is a wake-up timer, not an event."""
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
    """Parse `due.{resource}.{action}.{id}` into the action and the operation id.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _DUE_TOKENS or tokens[0] != "due":
        raise InvalidName(f"{subject!r} is not a deadline's subject: due.RESOURCE.ACTION.ID")
    _, resource, action, operation_id = tokens
    return Kind(check_name(resource, "resource"), check_name(action, "action")), check_operation_id(operation_id)


def parse_wake_subject(subject: str) -> WakeSubject:
    """Parse `wake.{resource}.{action}.{id}.{why}`, or the same with `.{priority}`.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) not in {_WAKE_TOKENS, _PRIORITY_WAKE_TOKENS} or tokens[0] != "wake":
        raise InvalidName(f"{subject!r} is not a wake subject: wake.RESOURCE.ACTION.ID.WHY")
    _, resource, action, operation_id, reason, *rest = tokens
    kind = Kind(check_name(resource, "resource"), check_name(action, "action"))
    reason, priority = check_name(reason, "wake reason"), "".join(check_name(one, "priority") for one in rest)
    return WakeSubject(check_operation_id(operation_id), kind, reason, priority)


def dead_letter_subject(durable: str, sequence: int) -> str:
    """Return the subject of a dead letter, an event that a subscriber could not handle. A second one replaces it."""
    return f"parked.{durable}.{sequence}"


def dead_letters_filter(durable: str) -> str:
    """Return the filter of all dead letters of one subscriber."""
    return f"parked.{durable}.*"


def dead_letter_retry_subject(durable: str) -> str:
    """Return the subject of requests to a subscriber to retry a dead letter. No stream stores them."""
    return f"retry.{durable}"


def children_subject(kind: Kind) -> str:
    """Return the subject of requests to the API for children of an action's operations. No stream stores them."""
    return f"children.{kind.resource}.{kind.action}"
