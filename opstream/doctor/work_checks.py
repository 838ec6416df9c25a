"""Checks of the work that waits: consumers that fall behind, timers that no process took, locks of ended operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from opstream_schemas import subjects
from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.text import format_count
from opstream_schemas.webhook_delivery import CALLBACK_ENDPOINT

from .system_findings import Level, SystemFinding

MAX_LAG: Final = timedelta(seconds=30)
"""Age of the oldest message that a projector or the webhooks have not handled, from which on they are behind."""
MAX_WAIT: Final = timedelta(seconds=60)
"""Age of a fired timer, or of a request, at which a process should have taken it."""
MAX_FAILING: Final = timedelta(minutes=5)
"""Time from the first attempt of a delivery at which its receiver is a finding: most failures are shorter."""
_MAX_SHOWN: Final = 5
_NONE: Final = timedelta(0)

_SERVICES: Final = {
    subjects.PROJECTOR_CONSUMER: ("projector", "statuses are read from the journal, slower, and deadlines come late"),
    subjects.PROJECTOR_DUE_CONSUMER: ("projector", "operations pass their deadlines"),
    subjects.WEBHOOKS_CONSUMER: ("webhooks", "outcomes are delivered late"),
    subjects.WEBHOOKS_DUE_CONSUMER: ("webhooks", "deliveries are late"),
}
"""The service of each shared consumer, and what its lag means. That of deadlines waits on purpose."""

_HOLD: Final = {subjects.WEBHOOKS_DUE_CONSUMER: timedelta(seconds=60)}
"""How long a process may have messages that it does not settle: it asks for more time while a receiver is slow."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What one consumer has before it."""

    consumer: str
    pending: int
    """Messages that were not delivered yet."""
    unacknowledged: int
    """Messages that a process has, or had when it died."""
    is_pulled: bool
    """A process waits for messages just now, or took or acknowledged one while it was looked at."""
    oldest: timedelta | None = None
    """Age of the oldest message that is not handled; None if there is none."""
    timer: str = ""
    """The subject of the oldest fired timer that no process has got; empty for none."""
    timer_age: timedelta = timedelta(0)
    leader_age: timedelta | None = None
    """For how long a cluster has had the leader of the consumer; None for a single server. Readers ask a new leader
    only some seconds later."""
    idle: timedelta | None = None
    """How long ago a message was delivered or acknowledged; None for never."""
    ack_wait: timedelta = timedelta(0)
    """After which a message is delivered again."""
    most: int = 0
    """How many messages processes may have at a time, e.g. by an action's concurrency; 0 for no limit."""
    is_paused: bool = False
    """An operator lets it deliver nothing."""
    mark: tuple[int, int] = (0, 0)
    """Deliveries, and the last one up to which all are acknowledged: they move while a process works."""

    @property
    def is_deserted(self) -> bool:
        """Return True if no process seems to read it."""
        return not self.is_pulled and not self.unacknowledged

    @property
    def is_abandoned(self) -> bool:
        """Return True if no process reads it, also if one has died with messages: a living one settles them in time."""
        return not self.is_pulled and (
            not self.unacknowledged
            or self.idle is None
            or self.idle > max(self.ack_wait, _HOLD.get(self.consumer, _NONE))
        )

    @property
    def is_busy(self) -> bool:
        """Return True if its readers have all that they can take at a time, so what is next waits for its turn."""
        if self.is_abandoned or not self.unacknowledged:
            return False
        return not self.is_pulled or 0 < self.most <= self.unacknowledged

    def late(self, age: timedelta | None) -> timedelta:
        """Return for how long a reader could have handled something of this age: not before there was a leader."""
        return min(age or _NONE, self.leader_age if self.leader_age is not None else timedelta.max)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A lock, and what the journal says of its owner."""

    lock: str
    operation_id: str
    age: timedelta


class FailingReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries to one endpoint that wait for another attempt, of those that were looked at."""

    endpoint: str
    count: int
    oldest: timedelta
    """For how long the first of them has been tried."""


def check_services(backlogs: Sequence[Backlog]) -> Iterator[SystemFinding]:
    """Check the consumers of projector and webhooks."""
    ours = [one for one in backlogs if one.consumer in _SERVICES]
    late = [one for one in ours if one.late(one.oldest) > MAX_LAG]
    for one in late:
        service, means = _SERVICES[one.consumer]
        what = (
            f"the {service} is {_seconds(one.oldest)} behind ({one.consumer}: "
            f"{format_count(one.pending, 'message')} before it, {one.unacknowledged:,} in work): {means}"
        )
        if one.is_abandoned:
            yield SystemFinding(
                name="ServiceStopped",
                level=Level.CRITICAL,
                message=f"no {service} process reads, and {what}",
                next_step=f"start 'opstream {service}'; if one runs, its log and its /readyz say why it does not read",
            )
        else:
            yield SystemFinding(
                name="ServiceBehind",
                level=Level.WARNING,
                message=what,
                next_step=f"look into the log of the {service}; if it is only busy, start a second one",
            )
    rest = [one for one in ours if one not in late]
    unread = [one for one in rest if one.is_abandoned and not _is_new(one)]
    told = {_SERVICES[one.consumer][0] for one in late}
    for service in sorted({_SERVICES[one.consumer][0] for one in unread} - told):
        names = ", ".join(one.consumer for one in unread if _SERVICES[one.consumer][0] == service)
        yield SystemFinding(
            name="ServiceStopped",
            level=Level.NOTE,
            message=f"no {service} process reads ({names}); nothing has waited for long yet",
            next_step=f"start 'opstream {service}', unless you stopped it on purpose or do without it",
        )
    unknown = [one for one in rest if _is_new(one) and (one.is_abandoned or (one.oldest or _NONE) > MAX_LAG)]
    if unknown:
        yield SystemFinding(
            name="Services",
            level=Level.NOTE,
            message=f"{', '.join(one.consumer for one in unknown)}: the cluster has chosen a leader only "
            f"{_seconds(min(one.late(timedelta.max) for one in unknown))} ago, so it is not known yet who reads",
            next_step=f"run it again in {_seconds(MAX_LAG)}",
        )
    if not (late or unread or unknown):
        yield SystemFinding(name="Services", level=Level.OK, message="projector and webhooks are up to date")


_BULK_ACTIONS: Final = frozenset(map(str, BULK_KINDS))


def _is_new(backlog: Backlog) -> bool:
    return backlog.leader_age is not None and backlog.leader_age <= MAX_LAG


def check_runners(backlogs: Sequence[Backlog]) -> Iterator[SystemFinding]:
    """Check whether each action that has requests has a runner."""
    served = _served_actions(backlogs)
    lost = [
        one
        for one in backlogs
        if one.consumer.startswith(subjects.RUNNER_CONSUMER_PREFIX)
        and not one.is_paused
        and _action_of(one) not in served
        and one.late(one.oldest) > MAX_WAIT
    ]
    for one in backlogs:
        if one.is_paused and one.consumer.startswith(subjects.RUNNER_CONSUMER_PREFIX) and not _queue_of(one):
            yield SystemFinding(
                name="ActionPaused",
                level=Level.NOTE,
                message=f"{_action_of(one)} is paused, and {format_count(one.pending, 'message')} for it wait",
                next_step=f"'opstream actions' says who did it; 'opstream actions resume {_action_of(one)}' ends it",
            )
    for one in lost:
        action = _action_of(one)
        yield SystemFinding(
            name="ActionWithoutRunner",
            level=Level.WARNING,
            message=f"{format_count(one.pending, 'message')} for {action} wait, the oldest for {_seconds(one.oldest)}, "
            "and no runner reads them",
            next_step="start 'opstream api' with --index, which runs bulk operations"
            if action in _BULK_ACTIONS
            else "start 'opstream runner' with the module of this action",
        )
    if not lost:
        yield SystemFinding(name="Runners", level=Level.OK, message="each action with requests has a runner")


def _action_of(backlog: Backlog) -> str:
    found = subjects.parse_runner_consumer(backlog.consumer)
    return "" if found is None else str(found[0])


def _queue_of(backlog: Backlog) -> str:
    """Return the priority of a further queue of an action; empty for any other consumer."""
    found = subjects.parse_runner_consumer(backlog.consumer)
    return "" if found is None else found[1]


def _served_actions(backlogs: Sequence[Backlog]) -> frozenset[str]:
    """Return the actions with a runner that looks into one of their queues: then it looks into the others, too."""
    return frozenset(_action_of(one) for one in backlogs if not one.is_deserted)


def check_timers(
    backlogs: Sequence[Backlog], uncopied: timedelta | None, overdue: timedelta | None
) -> Iterator[SystemFinding]:
    """Check that timers fire, and that a process takes what has fired.

    Args:
        backlogs: of all consumers.
        uncopied: age of the oldest fired timer that the journal has not copied; None for none.
        overdue: for how long the latest timer of those that were looked at should have fired already; None for none.
    """
    served = _served_actions(backlogs)
    taken = max(
        (
            one
            for one in backlogs
            if one.timer and not (one.is_paused or one.is_busy or (_queue_of(one) and _action_of(one) in served))
        ),
        key=lambda one: one.timer_age,
        default=None,
    )
    is_well = True
    if taken is not None and taken.late(taken.timer_age) > MAX_WAIT:
        is_well = False
        yield SystemFinding(
            name="TimerNotTaken",
            level=Level.CRITICAL,
            message=f"a timer fired {_seconds(taken.timer_age)} ago and no process took it: {taken.timer} (consumer "
            f"{taken.consumer})",
            next_step="start the projector for due.…, a runner of that action for wake.…; what waits then goes on",
        )
    if uncopied is not None and uncopied > MAX_WAIT:
        is_well = False
        yield SystemFinding(
            name="TimerNotCopied",
            level=Level.CRITICAL,
            message=f"a timer fired {_seconds(uncopied)} ago and is not in the journal: retries and deadlines stand",
            next_step="see that OPERATIONS has a leader and room; restart the server that leads TIMERS if it stays so",
        )
    if overdue is not None and overdue > MAX_WAIT:
        is_well = False
        yield SystemFinding(
            name="TimersOverdue",
            level=Level.CRITICAL,
            message=f"the broker does not fire timers: one is {_seconds(overdue)} late",
            next_step="see that TIMERS has a leader and the broker's clock is right; restart the server that leads it",
        )
    if is_well:
        yield SystemFinding(name="Timers", level=Level.OK, message="no timer is late")


def check_holds(stale: Sequence[Hold], looked_at: int) -> Iterator[SystemFinding]:
    """Check that the owners of locks are open operations of the journal."""
    old = [one for one in stale if one.age > MAX_WAIT]
    if old:
        shown = ", ".join(f"{one.lock} of operation {one.operation_id}" for one in old[:_MAX_SHOWN])
        yield SystemFinding(
            name="HoldOfEndedOperation",
            level=Level.WARNING,
            message=f"{format_count(len(old), 'lock')} of operations that have ended, or that the journal lacks: "
            f"{shown}; what waits for them waits on",
            next_step="start a projector, which releases them; a new request for the same resource takes one over, too",
        )
    else:
        yield SystemFinding(
            name="Holds", level=Level.OK, message=f"{format_count(looked_at, 'lock')}, all of open operations"
        )


def check_deliveries(waiting: Sequence[FailingReceiver]) -> Iterator[SystemFinding]:
    """Check whether deliveries of webhooks fail. A callback is its client's, so it needs no action of the operator."""
    failing = [one for one in waiting if one.oldest > MAX_FAILING]
    for one in failing:
        is_callback = one.endpoint == CALLBACK_ENDPOINT
        where = "callbacks of requests" if is_callback else f"the endpoint {one.endpoint}"
        yield SystemFinding(
            name="DeliveriesFail",
            level=Level.NOTE if is_callback else Level.WARNING,
            message=f"{format_count(one.count, 'delivery', 'deliveries')} to {where} failed and wait for another "
            f"attempt, the first for {_seconds(one.oldest)}",
            next_step="look at the receiver; 'opstream deliveries --failed' has its answers",
        )
    if not failing:
        yield SystemFinding(name="Deliveries", level=Level.OK, message="no delivery fails for long")


def _seconds(age: timedelta | None) -> str:
    seconds = (age or timedelta(0)) / timedelta(seconds=1)
    return f"{seconds:,.0f} s" if seconds < 7_200 else f"{seconds / 3_600:,.0f} h"
