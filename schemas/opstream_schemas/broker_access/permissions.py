"""The table of permissions. A subject without a row here is one that only the operator may use.

Each role has an account of its own at the broker, to which the account with the streams exports these subjects and no
others. Permissions of users in one account would not do: JetStream sends its answer to whatever subject a request names
as its reply, so a role that may read one stream could write into another (docs/adr/0050).

No role may make, change or delete a consumer: the broker delivers what a consumer finds to any subject that its maker
names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.events import (
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    CleanUpBegun,
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
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import QUEUED_PRIORITIES
from opstream_schemas.payloads.object_subjects import PAYLOAD_WRITES, PAYLOADS_STREAM

API: Final = "$JS.API"
"""The first tokens of JetStream's API."""


class Role(StrEnum):
    """Who connects to the broker."""

    API = "api"
    RUNNER = "runner"
    PROJECTOR = "projector"
    WEBHOOKS = "webhooks"
    SUBSCRIBER = "subscriber"
    AUDITOR = "auditor"
    ADMIN = "admin"
    """The operator: no account of its own, and every right in the one with the streams."""


class Way(StrEnum):
    """How a role uses a subject."""

    REQUEST = "send"
    """It sends messages, which have one answer at most."""
    STREAM = "send, many answers"
    LISTEN = "listen"
    SERVE = "answer"
    """It answers requests of the operator, and of roles with a row for the subject."""


class Grant(msgspec.Struct, frozen=True):
    """One row: a subject, or a filter of some, that a role may use."""

    subject: str
    why: str
    way: Way = Way.REQUEST
    is_vital: bool = False
    """True if the role can't do its job without: its processes look for it, and end without."""


class ActionAccess(msgspec.Struct, frozen=True):
    """An action that a runner may run."""

    kind: Kind
    lock_scope: str = ""
    """`ActionSpec.lock_scope`; empty for an action that is not exclusive."""
    has_priorities: bool = False

    @property
    def queues(self) -> tuple[str, ...]:
        """Return the priorities of its queues (`subjects.runner_consumer`)."""
        return ("", *QUEUED_PRIORITIES) if self.has_priorities else ("",)


_OPERATIONS: Final = subjects.OPERATIONS_STREAM
_TIMERS: Final = subjects.TIMERS_STREAM
_VIEW: Final = subjects.bucket_stream(subjects.VIEW_BUCKET)
_ACTIONS: Final = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
_HOLDS: Final = subjects.bucket_stream(subjects.HOLDS_BUCKET)
_RUNNERS: Final = subjects.bucket_stream(subjects.RUNNERS_BUCKET)
_ACCESS: Final = subjects.bucket_stream(subjects.ACCESS_BUCKET)
_CONTROLS: Final = subjects.bucket_stream(subjects.CONTROLS_BUCKET)
_KEYS: Final = subjects.bucket_stream(subjects.OPERATION_KEYS_BUCKET)
_COMMON: Final = (
    Grant(f"{API}.STREAM.INFO.*", "compares streams at its start, and looks every few seconds whether they store"),
    Grant(f"{API}.STREAM.NAMES", "looks every few seconds whether a stream is missing"),
    Grant(f"{API}.CONSUMER.INFO.*.*", "compares consumers at its start"),
    Grant(f"{API}.INFO", "looks every few seconds whether there is room"),
)
_RUN_EVENTS: Final = (
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
_WATCHED_EVENTS: Final = (CancelRequested, Failed)


def access_of(spec: ActionSpec) -> ActionAccess:
    """Return what runners of an action need."""
    return ActionAccess(spec.kind, spec.lock_scope, has_priorities=bool(spec.policy.priority))


def permissions(role: Role, *, actions: Sequence[ActionAccess] = (), durable: str = "") -> tuple[Grant, ...]:
    """Return what a role may do, without doubles. The operator has no rows: it may do everything.

    Args:
        role: the role.
        actions: of a runner; of an API those that it may pause.
        durable: of a subscriber: its name.
    """
    makers: dict[Role, Callable[[], Iterable[Grant]]] = {
        Role.API: lambda: _api(actions),
        Role.PROJECTOR: _projector,
        Role.WEBHOOKS: _webhooks,
        Role.AUDITOR: _auditor,
        Role.RUNNER: lambda: _runner(actions),
        Role.SUBSCRIBER: lambda: _subscriber(durable),
        Role.ADMIN: lambda: (),
    }
    return tuple({(one.subject, one.way is Way.LISTEN): one for one in makers[role]()}.values())


def vital_permissions(role: Role, *, actions: Sequence[ActionAccess] = ()) -> tuple[Grant, ...]:
    """Return those rows of a role without which its processes can't do their job. Arguments as of `permissions`."""
    return tuple(one for one in permissions(role, actions=actions) if one.is_vital)


def _api(actions: Sequence[ActionAccess]) -> Iterable[Grant]:
    yield from _COMMON
    yield Grant(subjects.event_type_subject(Requested.name), "accepts operations", is_vital=True)
    for event, why in (
        (CancelRequested, "accepts requests to cancel"),
        (Canceled, "cancels what has not begun"),
        (Signaled, "accepts signals"),
    ):
        yield Grant(subjects.event_type_subject(event.name), why)
    yield from _reads(_OPERATIONS, "reads operations")
    yield Grant(subjects.live_filter(_OPERATIONS), "hears of events as they are stored", Way.LISTEN)
    yield from _reads(_VIEW, "reads statuses")
    yield from _hears_of_actions("reads the catalog of actions")
    yield from _reads(_HOLDS, "reads queues for exclusive resources")
    yield from _reads(_RUNNERS, "shows which actions have no runner")
    yield from _reads(
        _TIMERS, "shows until when an operation waits, and counts what each caller has open, at its start"
    )
    yield from _witnesses("counts what waits, and looks for a journal that lost events")
    yield from _reads(_ACCESS, "reads API keys and the secret of the installation")
    keys = subjects.bucket_subject(subjects.ACCESS_BUCKET, subjects.access_key("*"))
    yield Grant(keys, "hears of new and revoked API keys; without it they come within a second", Way.LISTEN)
    for is_proven in (True, False):
        yield Grant(subjects.denial_subject(is_proven=is_proven), "records what it denied")
    yield from _reads(subjects.SCHEDULES_STREAM, "reads schedules")
    yield Grant(subjects.schedule_subject("*", "changed"), "makes and pauses schedules")
    yield Grant(subjects.schedule_subject("*", "occurred"), "records what became of the moments of schedules")
    yield Grant(subjects.act_subject(AdminAct.CANCELED), "records that an admin canceled another caller's operation")
    yield Grant(subjects.children_subject(Kind("*", "*")), "submits children that actions ask for", Way.SERVE)
    for kind in BULK_KINDS:
        yield from _pulls(_OPERATIONS, subjects.runner_consumer(kind), "takes bulk operations", is_vital=False)
        for done in (Started, Progressed, Succeeded, Failed):
            yield Grant(subjects.action_events_filter(kind, done.name), "records what becomes of them")
    yield Grant(subjects.act_subject(AdminAct.RETRIED), "records that another caller's operation is done again")
    yield Grant(subjects.act_subject(AdminAct.SCHEDULE_CHANGED), "records what is done with another caller's schedule")
    yield from _reads(_CONTROLS, "shows who paused an action, and why")
    for action in actions:
        # One by one: a wildcard would also let it pause the projector.
        for queue in action.queues:
            consumer = subjects.runner_consumer(action.kind, queue)
            yield Grant(f"{API}.CONSUMER.PAUSE.{_OPERATIONS}.{consumer}", "pauses and resumes the action for an admin")
            if queue:
                woken = subjects.fired_wake_subject(action.kind, "*", subjects.QUEUED_REASON, queue)
                yield Grant(woken, "puts requests into the queue of their priority")
        key = subjects.bucket_subject(subjects.CONTROLS_BUCKET, subjects.action_key(action.kind))
        yield Grant(key, "keeps who paused the action, and why")
    for act in (AdminAct.PAUSED, AdminAct.RESUMED, AdminAct.WITHDRAWN):
        yield Grant(subjects.act_subject(act), "records what an admin did to an action")
    yield from _reads(subjects.DELIVERIES_STREAM, "shows what was not delivered")
    yield Grant(subjects.REDELIVER_SUBJECT, "asks a webhooks service to send a delivery again")
    yield Grant(subjects.act_subject(AdminAct.REDELIVERED), "records that an admin had it sent again")
    yield from _reads(subjects.PARKED_STREAM, "shows what subscribers could not handle")
    yield Grant(subjects.dead_letter_retry_subject("*"), "asks a subscriber to handle an event again")
    yield Grant(subjects.act_subject(AdminAct.HANDLED_AGAIN), "records that an admin asked for it")
    yield from _stores_payloads("reads and stores what is too large for an event")
    yield from _reads(_KEYS, "opens confidential operations")
    yield Grant(
        subjects.bucket_subject(subjects.OPERATION_KEYS_BUCKET, ">"), "makes their keys, and records who erased"
    )
    yield Grant(f"{API}.STREAM.MSG.DELETE.{_KEYS}", "destroys the key of an operation that is erased")
    yield Grant(subjects.act_subject(AdminAct.ERASED), "records that an admin erased another caller's operation")


def _runner(actions: Sequence[ActionAccess]) -> Iterable[Grant]:
    yield from _COMMON
    yield from _reads(_OPERATIONS, "reads the operations that it runs")
    yield Grant(f"{API}.STREAM.MSG.GET.{_ACTIONS}", "compares its actions with the catalog")
    yield Grant(f"{API}.STREAM.MSG.GET.{_CONTROLS}", "looks whether an action was withdrawn")
    yield from _reads(_HOLDS, "reads locks and rates")
    yield from _reads(_RUNNERS, "looks whether a request of another version has a runner")
    yield Grant(f"{API}.STREAM.PURGE.{_HOLDS}", "removes locks and waiters")
    yield Grant(_probe(), "tries whether the broker stores, after a message had no answer")
    yield from _stores_payloads("reads and stores what is too large for an event")
    for action in actions:
        kind = action.kind
        for queue in action.queues:
            name = subjects.runner_consumer(kind, queue)
            yield from _pulls(_OPERATIONS, name, "takes its operations and wake-ups")
            if queue:
                yield Grant(subjects.fired_wake_subject(kind, "*", "*", queue), "keeps priorities when it stops")
        for event in _RUN_EVENTS:
            subject = subjects.action_events_filter(kind, event.name)
            yield Grant(subject, "records what becomes of its operations", is_vital=event is Started)
        yield Grant(subjects.children_subject(kind), "asks the API for children of its operations")
        for watched in _WATCHED_EVENTS:
            text = "hears that a running operation is to stop"
            yield Grant(subjects.action_events_filter(kind, watched.name), text, Way.LISTEN)
        yield Grant(subjects.bucket_subject(subjects.ACTIONS_BUCKET, subjects.action_key(kind)), "announces its action")
        yield Grant(subjects.presence_filter(kind), "says that it is there")
        keys = subjects.bucket_subject(subjects.OPERATION_KEYS_BUCKET, subjects.operation_key(kind, "*"))
        yield Grant(f"{API}.DIRECT.GET.{_KEYS}.{keys}", "opens its confidential operations, and no others")
        yield Grant(subjects.timer_subject(kind, "*", "*"), "schedules retries")
        yield Grant(subjects.fired_wake_subject(kind, "*", "*"), "wakes operations that may go on")
        yield Grant(subjects.bucket_subject(subjects.HOLDS_BUCKET, f"r.{subjects.action_key(kind)}"), "keeps its rate")
        if action.lock_scope:
            yield Grant(
                subjects.bucket_subject(subjects.HOLDS_BUCKET, f"*.{action.lock_scope}.>"), "takes and hands over locks"
            )


def _projector() -> Iterable[Grant]:
    yield from _COMMON
    for consumer in (
        subjects.PROJECTOR_CONSUMER,
        subjects.PROJECTOR_DUE_CONSUMER,
        subjects.PROJECTOR_DEADLINES_CONSUMER,
    ):
        yield from _pulls(_OPERATIONS, consumer, "takes events and deadlines")
    yield from _reads(_OPERATIONS, "reads operations")
    yield from _reads(_VIEW, "reads snapshots")
    yield from _reads(_HOLDS, "reads locks")
    yield from _reads(_TIMERS, "looks for lost timers")
    yield from _reads(_RUNNERS, "shows in its metrics which actions have no runner")
    yield from _hears_of_actions("names the actions in its metrics")
    yield from _reads(_CONTROLS, "leaves out actions that were withdrawn")
    yield from _witnesses("looks for a journal that lost events")
    yield Grant(subjects.bucket_subject(subjects.VIEW_BUCKET, ">"), "writes snapshots", is_vital=True)
    yield Grant(subjects.bucket_subject(subjects.HOLDS_BUCKET, ">"), "releases locks of operations that have ended")
    yield Grant(f"{API}.STREAM.PURGE.{_HOLDS}", "releases locks of operations that have ended")
    yield Grant(f"{API}.STREAM.PURGE.{_TIMERS}", "removes timers of operations that have ended")
    yield from _reads(PAYLOADS_STREAM, "looks for payloads of operations that are gone")
    yield Grant(f"{API}.STREAM.PURGE.{PAYLOADS_STREAM}", "removes payloads of operations that are gone")
    for event in (Failed, AttemptFailed, Canceled):
        yield Grant(subjects.event_type_subject(event.name), "ends operations whose deadline or lease is over")
    yield Grant(subjects.event_type_subject(CancelRequested.name), "cancels children of operations that have ended")
    every = Kind("*", "*")
    yield Grant(subjects.timer_subject(every, "*", "*"), "schedules deadlines, and what was lost")
    yield Grant(subjects.fired_wake_subject(every, "*", "*"), "wakes the next in a queue, and what was lost")
    yield Grant(subjects.fired_deadline_subject(every, "*"), "looks again at a deadline")


def _webhooks() -> Iterable[Grant]:
    yield from _COMMON
    yield from _pulls(_OPERATIONS, subjects.WEBHOOKS_CONSUMER, "takes outcomes")
    yield from _pulls(subjects.WEBHOOKS_STREAM, subjects.WEBHOOKS_DUE_CONSUMER, "takes deliveries that are due")
    yield from _reads(_OPERATIONS, "reads the requests and outcomes that it sends")
    yield from _reads(subjects.WEBHOOKS_STREAM, "shows in its metrics since when a delivery is due")
    yield Grant(f"{API}.STREAM.MSG.GET.{subjects.DELIVERIES_STREAM}", "looks whether an outcome was delivered")
    yield Grant(subjects.webhook_due_subject("*", "*"), "keeps deliveries")
    yield Grant(subjects.webhook_later_subject("*", "*"), "schedules their next attempts")
    yield Grant(subjects.delivery_records_filter(), "records attempts to deliver", is_vital=True)
    yield Grant(subjects.REDELIVER_SUBJECT, "sends a delivery again that an admin asks for", Way.SERVE)


def _subscriber(durable: str) -> Iterable[Grant]:
    yield from _pulls(_OPERATIONS, durable, "takes its events")
    yield Grant(f"{API}.CONSUMER.INFO.{_OPERATIONS}.{durable}", "compares its durable")
    yield Grant(f"{API}.STREAM.INFO.{_OPERATIONS}", "looks whether the journal is there")
    yield Grant(f"{API}.STREAM.MSG.GET.{_OPERATIONS}", "reads the request of an event")
    yield Grant(f"{API}.STREAM.INFO.{subjects.PARKED_STREAM}", "looks whether events can be parked")
    parked = subjects.dead_letters_filter(durable)
    yield Grant(parked, "parks events that it can't handle")
    yield Grant(f"{API}.DIRECT.GET.{subjects.PARKED_STREAM}.{parked}", "reads them again")
    yield Grant(subjects.dead_letter_retry_subject(durable), "handles one again ('opstream parked --retry')", Way.SERVE)


def _auditor() -> Iterable[Grant]:
    yield from _COMMON
    for stream in (_OPERATIONS, _VIEW, subjects.ARCHIVE_STREAM, subjects.DELIVERIES_STREAM, subjects.PARKED_STREAM):
        yield from _reads(stream, "reads the history")
    yield from _reads(subjects.ACCESS_LOG_STREAM, "reads what was denied, and what administrators did")
    yield from _witnesses("compares the journal with its readers")


def _witnesses(why: str) -> Iterable[Grant]:
    yield Grant(f"{API}.CONSUMER.LIST.{_OPERATIONS}", why)
    yield Grant(f"{API}.STREAM.MSG.GET.{subjects.ARCHIVE_STREAM}", why)


def _hears_of_actions(why: str) -> Iterable[Grant]:
    yield from _reads(_ACTIONS, why)
    changes = subjects.bucket_subject(subjects.ACTIONS_BUCKET, ">")
    yield Grant(changes, "hears of new actions; without it they come within 10 s", Way.LISTEN)


def _reads(stream: str, why: str) -> Iterable[Grant]:
    yield Grant(f"{API}.STREAM.MSG.GET.{stream}", why)
    yield Grant(f"{API}.DIRECT.GET.{stream}", why, Way.STREAM)
    yield Grant(f"{API}.DIRECT.GET.{stream}.>", why)


def _stores_payloads(why: str) -> Iterable[Grant]:
    yield from _reads(PAYLOADS_STREAM, why)
    for subject in PAYLOAD_WRITES:
        yield Grant(subject, why)


def _pulls(stream: str, consumer: str, why: str, *, is_vital: bool = True) -> Iterable[Grant]:
    yield Grant(f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}", why, Way.STREAM, is_vital=is_vital)
    yield Grant(f"$JS.ACK.{stream}.{consumer}.>", why)


def _probe() -> str:
    return subjects.fired_wake_subject(Kind("opstream", "probe"), "probe", "probe")
