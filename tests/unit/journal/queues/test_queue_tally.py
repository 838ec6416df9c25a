"""What is found in the queues, by action and reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from opstream_journal.jetstream.rpc import StoredMessage
from opstream_journal.metrics.action_labels import OTHER, ActionLabels
from opstream_journal.metrics.wait_gauges import Wait
from opstream_journal.queues.consumer_backlogs import ConsumerBacklog
from opstream_journal.queues.queue_tally import OVERDUE_AFTER, QueueTally, pending_reason
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec, Policy
from opstream_schemas.names import Kind
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.status_monitor import WaitingReason

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KIND = Kind("book", "read")


@pytest.fixture
def tally() -> QueueTally:
    return QueueTally(ActionLabels(lambda: {KIND}), NOW.timestamp())


def stored(subject: str, seconds_ago: float, data: bytes = b"", due_in: float | None = None) -> StoredMessage:
    """A message of a batched read."""
    schedule = "" if due_in is None else f"@at {(NOW + timedelta(seconds=due_in)).isoformat()}"
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return StoredMessage(subject, 1, data, time=at, schedule=schedule)


def test_timers_wait_for_a_retry_or_a_slot(tally: QueueTally) -> None:
    """A wake-up waits for what its subject says, since it was scheduled; a deadline is nothing that waits."""
    for why, ago in (("retry", 10), ("retry", 30), ("handed-back", 1), ("rate-123", 4), ("late-456", 5)):
        tally.add_timer(stored(subjects.timer_subject(KIND, "op-1", why), ago, due_in=60))
    tally.add_timer(stored(subjects.deadline_subject(KIND, "op-1"), 99, due_in=60))
    assert tally.waits == {("book:read", "Retry"): Wait(3, 30.0), ("book:read", "Rate"): Wait(2, 5.0)}
    assert (tally.overdue, tally.lateness) == (0, 0.0)


def test_a_start_time_is_no_wait(tally: QueueTally) -> None:
    """Operations before their start times are counted, and have not waited; a timer of one may be late, as any."""
    for due_in in (3_600, -OVERDUE_AFTER - 1):
        tally.add_timer(stored(subjects.timer_subject(KIND, "op-1", "start"), 86_400, due_in=due_in))
    assert tally.waits == {("book:read", "StartTime"): Wait(2, 0.0)}
    assert tally.overdue == 1


def test_timers_that_should_have_fired(tally: QueueTally) -> None:
    """Deadlines count as well as wake-ups, once they are later than a broker ever is; a broken one does not."""
    for due_in in (-OVERDUE_AFTER - 1, -OVERDUE_AFTER - 7, -OVERDUE_AFTER + 1, 5):
        tally.add_timer(stored(subjects.deadline_subject(KIND, "op-1"), 100, due_in=due_in))
    tally.add_timer(msgspec.structs.replace(stored(subjects.deadline_subject(KIND, "op-2"), 100), schedule="@at soon"))
    tally.add_timer(stored("timers.of.another-form", 100))
    assert tally.overdue == 2
    assert tally.lateness == pytest.approx(OVERDUE_AFTER + 7)


def test_waiters_of_a_resource(tally: QueueTally) -> None:
    """Those of an action count together, whatever their resource is; what is no claim is passed over."""
    for number, ago in enumerate((3.0, 8.0)):
        claim = Claim(operation_id=f"op-{number}", sequence=number, kind=str(KIND))
        tally.add_waiter(stored(f"$KV.holds.w.x.{number}", ago, msgspec.json.encode(claim)))
    for junk in (b"", b"{", b'{"operationId":"op","sequence":1,"kind":"no action"}'):
        tally.add_waiter(stored("$KV.holds.w.x.9", 1, junk))
    assert tally.waits == {("book:read", "Resource"): Wait(2, 8.0)}


def test_invented_actions_share_a_series(tally: QueueTally) -> None:
    """Timers of a thousand actions that the catalog does not have are one series."""
    for number in range(1_000):
        tally.add_timer(stored(subjects.timer_subject(Kind("invented", f"a-{number}"), "op", "retry"), 1, due_in=9))
    assert tally.waits == {(OTHER, "Retry"): Wait(1_000, 1.0)}


def test_zeros_for_what_may_be_waited_for(tally: QueueTally) -> None:
    """An action has a series for each reason that its options allow, and no other; what was found stays."""
    policy = Policy(exclusive="resource")
    spec = ActionSpec(
        resource="book", action="read", summary="", action_version=1, input_schema={}, result_schema={}, policy=policy
    )
    tally.add(KIND, WaitingReason.RETRY, 2.0)
    tally.expect([spec])
    assert {reason: wait.number for (_, reason), wait in tally.waits.items()} == {
        "Runner": 0,
        "FreeRunner": 0,
        "Retry": 1,
        "Resource": 0,
    }


@pytest.mark.parametrize(
    ("consumer", "policy", "reason"),
    [
        ({}, {}, WaitingReason.RUNNER),
        ({"num_ack_pending": 2}, {}, WaitingReason.FREE_RUNNER),
        ({"num_waiting": 1}, {}, WaitingReason.FREE_RUNNER),
        ({"num_ack_pending": 2}, {"max_concurrency": 2}, WaitingReason.CONCURRENCY),
        ({"num_ack_pending": 1}, {"max_concurrency": 2}, WaitingReason.FREE_RUNNER),
    ],
)
def test_what_undelivered_messages_wait_for(consumer: Any, policy: Any, reason: WaitingReason) -> None:
    """Which runners there are decides, and how many attempts of the action run."""
    assert pending_reason(ConsumerBacklog(num_pending=5, **consumer), Policy(**policy)) is reason
