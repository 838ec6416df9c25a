"""Who reads the consumers of projector and webhooks: who is behind, who is stopped, and what is not known yet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opstream.doctor.system_findings import Level
from opstream.doctor.work_checks import Backlog, check_runners, check_services, check_timers
from opstream_schemas import subjects
from opstream_schemas.names import Kind

pytestmark = pytest.mark.unit

LONG = timedelta(minutes=10)
WAIT = timedelta(seconds=30)


def backlog(consumer: str = subjects.PROJECTOR_CONSUMER, **given: Any) -> Backlog:
    """Of a consumer that is late, and that no process reads."""
    plain = {"pending": 5, "unacknowledged": 0, "is_pulled": False, "oldest": LONG, "idle": LONG, "ack_wait": WAIT}
    return Backlog(consumer=consumer, **(plain | given))


@pytest.mark.parametrize(
    ("given", "name", "level"),
    [
        ({}, "ServiceStopped", Level.CRITICAL),
        ({"unacknowledged": 5}, "ServiceStopped", Level.CRITICAL),
        ({"unacknowledged": 5, "idle": timedelta(seconds=1)}, "ServiceBehind", Level.WARNING),
        ({"is_pulled": True}, "ServiceBehind", Level.WARNING),
        ({"oldest": timedelta(seconds=1)}, "ServiceStopped", Level.NOTE),
        ({"oldest": None, "pending": 0}, "ServiceStopped", Level.NOTE),
        ({"oldest": None, "pending": 0, "is_pulled": True}, "Services", Level.OK),
        ({"leader_age": timedelta(seconds=3)}, "Services", Level.NOTE),
        ({"leader_age": timedelta(seconds=3), "is_pulled": True}, "Services", Level.NOTE),
        ({"leader_age": LONG}, "ServiceStopped", Level.CRITICAL),
    ],
)
def test_who_reads(given: dict[str, Any], name: str, level: Level) -> None:
    """A dead process has messages in work for ever, a busy one settles them; after an election it is not known yet."""
    (found,) = check_services([backlog(**given)])
    assert (found.name, found.level) == (name, level)
    if level is Level.CRITICAL:
        assert found.next_step.startswith("start 'opstream projector'")


def test_a_slow_receiver() -> None:
    """Webhooks hold deliveries for as long as a receiver takes, which is no end of the service."""
    slow = backlog(subjects.WEBHOOKS_DUE_CONSUMER, unacknowledged=5, idle=timedelta(seconds=45), ack_wait=WAIT / 3)
    (found,) = check_services([slow])
    assert found.name == "ServiceBehind"


def test_a_service_is_named_once() -> None:
    """A projector that is late on one of its consumers needs no note about the other."""
    (found,) = check_services([backlog(), backlog(subjects.PROJECTOR_DUE_CONSUMER, oldest=None, pending=0)])
    assert (found.name, found.level) == ("ServiceStopped", Level.CRITICAL)


def test_an_election_is_no_finding() -> None:
    """What could not be handled without a leader is not late, for runners and timers, too."""
    name = f"{subjects.RUNNER_CONSUMER_PREFIX}book_upload-start"
    waits = backlog(name, timer="wake.book.upload-start.op-1", timer_age=LONG)
    young = backlog(name, timer="wake.book.upload-start.op-1", timer_age=LONG, leader_age=timedelta(seconds=5))
    assert [one.name for one in [*check_runners([waits]), *check_timers([waits], None, None)]] == [
        "ActionWithoutRunner",
        "TimerNotTaken",
    ]
    assert [one.level for one in [*check_runners([young]), *check_timers([young], None, None)]] == [Level.OK] * 2


def test_a_retry_behind_others_is_no_fault() -> None:
    """An action of which one attempt may run at a time: what fired waits for its turn, which is no fault of a timer."""
    name = subjects.runner_consumer(Kind("book", "bind"))
    queued = backlog(name, timer="wake.book.bind.op-1.retry", timer_age=LONG, unacknowledged=1, is_pulled=True, most=1)
    assert [one.name for one in check_timers([queued], None, None)] == ["Timers"]
    for change in ({"most": 2}, {"most": 0}, {"is_pulled": False, "idle": LONG}):
        other = msgspec.structs.replace(queued, **change)
        assert [one.name for one in check_timers([other], None, None)] == ["TimerNotTaken"], change


def test_a_paused_action_needs_no_runner() -> None:
    """It is a note, with the way to end it; neither its queue nor its timers are a fault."""
    name = subjects.runner_consumer(Kind("book", "upload"))
    paused = backlog(name, is_paused=True, timer="wake.book.upload.op-1.retry", timer_age=LONG)
    found = [*check_runners([paused]), *check_timers([paused], None, None)]
    assert [(one.name, one.level) for one in found] == [
        ("ActionPaused", Level.NOTE),
        ("Runners", Level.OK),
        ("Timers", Level.OK),
    ]
    assert "'opstream actions resume book:upload'" in found[0].next_step


def test_what_waits_for_its_priority_is_no_fault() -> None:
    """All slots are taken by others: what waits in the queue of a priority has a runner. Without any it has none."""
    kind = Kind("book", "bind")
    first = backlog(subjects.runner_consumer(kind), unacknowledged=1, is_pulled=False, oldest=None, pending=0)
    wake = subjects.queued_request_subject(kind, "op-1", "low")
    low = backlog(subjects.runner_consumer(kind, "low"), oldest=LONG, timer=wake, timer_age=LONG)
    assert [one.name for one in check_runners([first, low])] == ["Runners"]
    assert [one.name for one in check_timers([first, low], None, None)] == ["Timers"]

    deserted = msgspec.structs.replace(first, unacknowledged=0)
    assert [one.name for one in check_runners([deserted, low])] == ["ActionWithoutRunner"]
    assert "book:bind" in next(check_runners([deserted, low])).message
    assert [one.name for one in check_timers([deserted, low], None, None)] == ["TimerNotTaken"]


def test_bulk_operations_have_no_runner() -> None:
    """What is left to do is said as it is: the API runs them."""
    steps = {
        action: next(check_runners([backlog(f"{subjects.RUNNER_CONSUMER_PREFIX}{action}", oldest=LONG)])).next_step
        for action in ("operations_retry", "book_upload-start")
    }
    assert steps["operations_retry"].startswith("start 'opstream api' with --index")
    assert steps["book_upload-start"].startswith("start 'opstream runner'")
