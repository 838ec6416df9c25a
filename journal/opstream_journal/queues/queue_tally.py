"""What was found in the queues, counted by action and reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from opstream_journal.jetstream.rpc import StoredMessage
from opstream_journal.metrics.action_labels import ActionLabels
from opstream_journal.metrics.wait_gauges import Wait
from opstream_journal.queues.consumer_backlogs import ConsumerBacklog
from opstream_journal.queues.message_ages import stored_at
from opstream_journal.queues.runner_records import ActionRunners, has_no_runner
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec, Policy
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.operation.dispatch_decision import START_REASON, TIMEOUT_REASON, WAIT_REASON
from opstream_schemas.operation.rate_limit import parse_slot
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.status_monitor import WaitingReason

OVERDUE_AFTER: Final = 5.0
"""Seconds after its time from which a timer that has not fired is overdue."""

_AT: Final = "@at "
_NOTHING: Final = Wait(0, 0.0)
_decode_claim: Final = msgspec.json.Decoder(Claim).decode


class QueueTally:
    """The queues as one look finds them.

    Args:
        labels: of actions.
        now: the broker's time in Unix seconds.
    """

    def __init__(self, labels: ActionLabels, now: float) -> None:
        self._labels = labels
        self._now = now
        self.waits: dict[tuple[str, str], Wait] = {}
        self.queued: dict[tuple[str, str], int] = {}
        """By action and priority: messages in the queue of an action with priorities. That of normal priority counts
        requests of the others, too, until a runner has passed them."""
        self.overdue = 0
        """Timers that should have fired."""
        self.lateness = 0.0
        """Seconds by which the latest of them is late."""

    def expect(self, specs: Iterable[ActionSpec]) -> None:
        """Show a zero for each reason for which operations of these actions may wait."""
        for spec in specs:
            for reason in possible_reasons(spec.policy):
                self.waits.setdefault((self._labels.label(spec.kind), reason), _NOTHING)

    def add(self, kind: Kind, reason: WaitingReason, seconds: float, count: int = 1) -> None:
        """Count operations that wait, the first of them for so many seconds."""
        key = (self._labels.label(kind), str(reason))
        before = self.waits.get(key, _NOTHING)
        self.waits[key] = Wait(before.number + count, max(before.seconds, seconds))

    def add_timer(self, message: StoredMessage) -> None:
        """Count a message of the stream TIMERS that has not fired."""
        tokens = message.subject.split(".")
        if len(tokens) != 5:
            return
        _, resource, action, _, why = tokens
        if why == START_REASON:
            self.add(Kind(resource, action), WaitingReason.START_TIME, 0.0)
        elif why in {WAIT_REASON, TIMEOUT_REASON}:
            reason = WaitingReason.SLEEP if why == WAIT_REASON else WaitingReason.SIGNAL
            self.add(Kind(resource, action), reason, 0.0)
        elif not subjects.is_deadline(why):
            reason = WaitingReason.RATE if parse_slot(why)[0] else WaitingReason.RETRY
            self.add(Kind(resource, action), reason, max(0.0, self._now - stored_at(message)))
        if not message.schedule.startswith(_AT):
            return
        try:
            late = self._now - datetime.fromisoformat(message.schedule.removeprefix(_AT)).timestamp()
        except ValueError:
            return
        if late > OVERDUE_AFTER:
            self.overdue += 1
            self.lateness = max(self.lateness, late)

    def add_waiter(self, message: StoredMessage) -> None:
        """Count an entry of the queue for an exclusive resource. One that can't be read is passed over."""
        try:
            kind = Kind.parse(_decode_claim(message.data).kind)
        except (msgspec.MsgspecError, InvalidName, RecursionError):
            return
        self.add(kind, WaitingReason.RESOURCE, max(0.0, self._now - stored_at(message)))


def possible_reasons(policy: Policy) -> list[WaitingReason]:
    """Return what operations of an action may wait for, as far as one look at the queues can tell."""
    reasons = [WaitingReason.RUNNER, WaitingReason.FREE_RUNNER, WaitingReason.RETRY]
    if policy.max_concurrency:
        reasons.append(WaitingReason.CONCURRENCY)
    if policy.exclusive:
        reasons.append(WaitingReason.RESOURCE)
    if policy.rate:
        reasons.append(WaitingReason.RATE)
    return reasons


def pending_reason(backlog: ConsumerBacklog, policy: Policy, presence: ActionRunners | None = None) -> WaitingReason:
    """Return what the messages wait for that the consumer of an action's runners has not delivered.

    A pause comes first: while it lasts, no runner that comes would help.

    Args:
        backlog: of the consumer.
        policy: of the action.
        presence: its runners; None if their records can't be read.
    """
    if backlog.paused:
        return WaitingReason.PAUSED
    if has_no_runner(presence, num_waiting=backlog.num_waiting, num_ack_pending=backlog.num_ack_pending):
        return WaitingReason.RUNNER
    if policy.max_concurrency and backlog.num_ack_pending >= policy.max_concurrency:
        return WaitingReason.CONCURRENCY
    return WaitingReason.FREE_RUNNER
