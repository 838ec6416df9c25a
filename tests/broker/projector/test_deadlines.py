"""Deadlines on a real broker, with no runner alive: they are scheduled, they fire, and they end open operations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import pytest

from opstream_journal import Connection, ConsumerGone, Journal, SnapshotStore
from opstream_journal.runtime.crash_points import CRASH_VARIABLE, CrashPoint
from opstream_journal.stores.timers import schedule_deadline, schedule_wake_up
from opstream_projector.deadlines import DeadlineScheduler, RecentIds
from opstream_schemas import subjects
from opstream_schemas.errors import ErrorCode, OperationFinished
from opstream_schemas.events import AttemptFailed, Canceled, OperationError, RecordedEvent, WaitBegun
from opstream_schemas.operation.commands import Succeed
from opstream_schemas.operation.dispatch_decision import WAIT_REASON
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, extend, linked, opened
from tests.support.projector.deadlines import (
    SCAN_DELAY,
    begin,
    command_handler,
    ends,
    enforcer,
    ever_scheduled,
    finished,
    is_acked,
    is_scheduled,
    requests_consumer,
    scanner,
    scheduled,
    scheduled_for,
    scheduler,
)
from tests.support.projector.projection import LIFE, RESULT, projector, running, settled, utc_now
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def failed(journal: Journal, operation_id: str, within: float = 10.0) -> Operation:
    """Wait until the operation has failed at its deadline, with exactly one terminal event."""
    operation = await eventually(lambda: finished(journal, operation_id), within=within)
    assert operation is not None
    assert operation.error is not None
    assert (operation.status, operation.error.code) == (Status.FAILED, ErrorCode.DEADLINE_EXCEEDED)
    assert len(await ends(journal, operation_id)) == 1
    return operation


async def due(link: Connection, subject: str) -> int:
    """Publish a fired deadline; return its sequence in the stream of timers."""
    return (await link.nc.jetstream().publish(subject, b"")).seq


async def test_a_short_deadline_is_scheduled_at_once(link: Connection, journal: Journal) -> None:
    """Its timer fires, not too early, ends the operation once, and leaves no timer behind."""
    parts = projector(link, journal, effects=[scheduler(link)]), enforcer(link, journal)
    async with running(*parts):
        await begin(journal, "op-1", 1.0)
        await eventually(lambda: is_scheduled(link, "op-1"), within=0.9)
        assert not await ends(journal, "op-1")
        operation = await failed(journal, "op-1")
        await eventually(lambda: is_scheduled(link))
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DUE_CONSUMER))

    assert operation.finished_at is not None
    assert timedelta(0) <= operation.finished_at - operation.deadline < timedelta(seconds=2)
    assert (await journal.events("op-1"))[-1].source == "opstream/projector"


async def test_a_deadline_that_has_passed(link: Connection, journal: Journal) -> None:
    """An operation that is overdue when the projector first sees it ends at once."""
    await begin(journal, "op-1", -86_400.0)
    async with running(projector(link, journal, effects=[scheduler(link)]), enforcer(link, journal)):
        await failed(journal, "op-1", within=3)


async def test_while_it_waits_for_a_retry(link: Connection, journal: Journal) -> None:
    """An operation whose next attempt would come later than its deadline ends at the deadline."""
    async with running(projector(link, journal, effects=[scheduler(link)]), enforcer(link, journal)):
        waiting = AttemptFailed(
            attempt=1,
            error=OperationError(code="Throttled", message=""),
            retry_at=utc_now() + timedelta(hours=1),
            counted=True,
        )
        await extend(journal, await begin(journal, "op-1", 1.0), started(), waiting)
        await failed(journal, "op-1")


async def test_while_an_attempt_is_live(link: Connection, journal: Journal) -> None:
    """A running operation ends at its deadline, whatever its attempt does."""
    async with running(projector(link, journal, effects=[scheduler(link)]), enforcer(link, journal)):
        await extend(journal, await begin(journal, "op-1", 1.0), *LIFE[:2])
        await failed(journal, "op-1")


async def test_a_long_deadline_is_scheduled_by_the_scanner(link: Connection, journal: Journal) -> None:
    """It is scheduled once the operation has been open for the scan delay, not before, and only by the scanner."""
    parts = projector(link, journal, effects=[scheduler(link)]), scanner(link, journal)
    async with running(*parts):
        operation = await begin(journal, "op-1")
        await eventually(lambda: is_scheduled(link, "op-1"))
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DEADLINES_CONSUMER))

    timer = await link.nc.jetstream().get_last_msg(subjects.TIMERS_STREAM, subjects.deadline_subject(KIND, "op-1"))
    assert timer.time is not None
    assert await scheduled_for(link, "op-1") == operation.deadline
    assert timer.time - operation.created_at > timedelta(seconds=SCAN_DELAY * 0.9)
    assert await ever_scheduled(link) == 1


async def test_without_a_view(link: Connection, journal: Journal) -> None:
    """Without a snapshot the scanner reads the journal: it schedules the open operation, not the ended one."""
    await begin(journal, "open")
    await extend(journal, await begin(journal, "ended"), *LIFE)
    async with running(scanner(link, journal)):
        await eventually(lambda: is_scheduled(link, "open"))
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DEADLINES_CONSUMER))
    assert await ever_scheduled(link) == 1


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
async def test_an_ended_operation_is_not_scheduled(link: Connection, journal: Journal, is_known: bool) -> None:
    """Neither the process that saw it end schedules it, nor one that has to read its snapshot."""
    effect = scheduler(link)
    async with running(projector(link, journal, effects=[effect])):
        await asyncio.gather(*(_live(journal, f"op-{number}") for number in range(300)))
        await settled(link)
    async with running(scanner(link, journal, ended=effect.ended if is_known else RecentIds(1))):
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DEADLINES_CONSUMER))
    assert await ever_scheduled(link) == 0


async def _live(journal: Journal, operation_id: str) -> None:
    await extend(journal, await begin(journal, operation_id), *LIFE)


async def test_the_end_cancels_the_timer(link: Connection, journal: Journal) -> None:
    """An operation that ends in time leaves no timer, whether scheduled at once or by the scanner."""
    async with running(
        projector(link, journal, effects=[scheduler(link)]), scanner(link, journal), enforcer(link, journal)
    ):
        far = await begin(journal, "far")
        near = await begin(journal, "near", 50.0)
        await eventually(lambda: is_scheduled(link, "far", "near"))
        await extend(journal, far, *LIFE)
        await eventually(lambda: is_scheduled(link, "near"))
        await extend(journal, near, *LIFE)
        await eventually(lambda: is_scheduled(link))


async def test_the_end_cancels_a_wait(link: Connection, journal: Journal) -> None:
    """A wait that ended before its time leaves no timer either, however quickly its operation ended."""
    async with running(projector(link, journal, effects=[DeadlineScheduler(link)])):
        until, begun = utc_now() + timedelta(days=30), await begin(journal, "op-1")
        waits = await extend(journal, begun, started(), WaitBegun(attempt=1, wait="s", until=until))
        await schedule_wake_up(link, KIND, "op-1", WAIT_REASON, at=until, armed_by=waits.stream_sequence)
        assert await scheduled(link)
        await extend(journal, waits, Canceled())
        await eventually(lambda: is_scheduled(link))


async def test_an_outdated_snapshot(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """An operation that has ended, but is open in the view, gets no timer: its end cancels none."""
    operation = await begin(journal, "op-1")
    await view.put(operation, 0)
    await extend(journal, operation, *LIFE)
    async with running(scanner(link, journal)):
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DEADLINES_CONSUMER))
    assert await ever_scheduled(link) == 0


async def test_a_superfluous_timer_does_no_harm(link: Connection, journal: Journal) -> None:
    """The deadline of an operation that has ended changes nothing."""
    operation = await begin(journal, "op-1", 2.0)
    await schedule_deadline(link, KIND, "op-1", operation.deadline)
    await extend(journal, operation, *LIFE)
    async with running(enforcer(link, journal)):
        await eventually(lambda: _has_been_due(link))
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DUE_CONSUMER))
    assert [event.data for event in await ends(journal, "op-1")] == [RESULT]


async def _has_been_due(link: Connection) -> bool:
    info = await link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_DUE_CONSUMER)
    return info.delivered is not None and info.delivered.consumer_seq > 0


async def test_killed_between_timer_and_acknowledgement(broker: Broker, link: Connection, journal: Journal) -> None:
    """The next process schedules again what a killed one had scheduled: one timer is left."""
    consumer = await requests_consumer(link, "quick")
    await begin(journal, "op-1")
    environment = os.environ | {CRASH_VARIABLE: CrashPoint.PROJECTOR_DEADLINE_ARMED}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.projector.deadlines", broker.url, consumer, env=environment
    )
    assert await asyncio.wait_for(child.wait(), 20) == -signal.SIGKILL
    assert await is_scheduled(link, "op-1")
    assert not await is_acked(link, consumer)

    async with running(scanner(link, journal, consumer=consumer)):
        await eventually(lambda: is_acked(link, consumer))
    assert await is_scheduled(link, "op-1")
    assert await ever_scheduled(link) == 2


async def test_two_replicas(broker: Broker, link: Connection, journal: Journal) -> None:
    """They share the requests and the deadlines: each operation is scheduled once, and fails once."""
    names = [f"op-{number}" for number in range(60)]
    async with linked(broker.url) as other:
        replicas = (link, journal), (other, await opened(other))
        near = [projector(*each, effects=[scheduler(each[0])]) for each in replicas]
        parts = *(scanner(*each) for each in replicas), *(enforcer(*each) for each in replicas)
        async with running(*near, *parts):
            await asyncio.gather(*(begin(journal, name) for name in names))
            await eventually(lambda: is_scheduled(link, *names))
            await eventually(lambda: is_acked(link, subjects.PROJECTOR_DEADLINES_CONSUMER))
            assert await ever_scheduled(link) == len(names)
            await asyncio.gather(*(begin(journal, f"near-{name}", 1.0) for name in names))
            for name in names:
                await failed(journal, f"near-{name}")
            await eventually(lambda: is_scheduled(link, *names))


@pytest.mark.parametrize("seconds", [0.5, 15.0], ids=["while it is gone", "when it is back"])
async def test_the_broker_restarts_between_scheduling_and_firing(
    broker: Broker, link: Connection, journal: Journal, seconds: float
) -> None:
    """A timer survives the restart, and fires even if its time passed meanwhile."""
    async with running(projector(link, journal, effects=[scheduler(link)]), enforcer(link, journal)):
        operation = await begin(journal, "op-1", seconds)
        await eventually(lambda: is_scheduled(link, "op-1"), within=0.4)
        broker.kill()
        if seconds < 1:
            await eventually(lambda: utc_now() > operation.deadline)
        await asyncio.to_thread(broker.start)
        operation = await failed(journal, "op-1", within=40)
    assert operation.finished_at is not None
    assert operation.finished_at >= operation.deadline


async def test_the_broker_is_gone_when_a_request_is_old_enough(
    broker: Broker, link: Connection, journal: Journal
) -> None:
    """What the scanner holds then is scheduled once the broker is back."""
    async with running(projector(link, journal)):
        await begin(journal, "op-1")
        await settled(link)
    one = scanner(link, journal, scan_delay=1.0)
    async with running(one):
        await eventually(lambda: one._young)
        broker.kill()
        await eventually(lambda: one._worker._is_troubled)
        assert not one.is_ready
        await asyncio.to_thread(broker.start)
        await eventually(lambda: is_scheduled(link, "op-1"), within=20)
        await eventually(lambda: one.is_ready)


async def test_fired_too_early(link: Connection, journal: Journal) -> None:
    """A timer that fires before the deadline in the journal is scheduled again, and ends nothing."""
    operation = await begin(journal, "op-1")
    await schedule_deadline(link, KIND, "op-1", utc_now())
    async with running(enforcer(link, journal)):
        await eventually(lambda: _has_been_due(link))
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DUE_CONSUMER))
        await eventually(lambda: is_scheduled(link, "op-1"))
    assert await scheduled_for(link, "op-1") == operation.deadline
    assert not await ends(journal, "op-1")


async def test_a_slow_clock(link: Connection, journal: Journal) -> None:
    """A process whose clock is an hour slow uses the broker's time: the deadline ends the operation at once."""
    await begin(journal, "op-1", 0.5)
    late = enforcer(link, journal, now=lambda: utc_now() - timedelta(hours=1))
    await schedule_deadline(link, KIND, "op-1", utc_now() + timedelta(seconds=0.5))
    async with running(late):
        await failed(journal, "op-1", within=5)
    assert await ever_scheduled(link) == 2  # the timer and its firing


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_scanner_with_a_wrong_clock(link: Connection, journal: Journal, hours: int) -> None:
    """It schedules early rather than never."""
    await begin(journal, "op-1")
    async with running(scanner(link, journal, now=lambda: utc_now() + timedelta(hours=hours))):
        await eventually(lambda: is_scheduled(link, "op-1"))


async def test_a_foreign_message(link: Connection, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A message that is not a deadline is logged and acknowledged; one of an unknown operation is acknowledged."""
    await due(link, "overdue.book")
    await due(link, "overdue.book.upload-start.op%1")
    await due(link, subjects.fired_deadline_subject(KIND, "nobody"))
    async with running(enforcer(link, journal)):
        await eventually(lambda: _arrived(link, 3))
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DUE_CONSUMER))
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == 2
    assert "due.book" in logged[0]
    assert "op%1" in logged[1]


async def _arrived(link: Connection, count: int) -> bool:
    return (await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)).state.last_seq >= count


async def test_a_damaged_operation(link: Connection, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """An operation that can't be folded is logged once and retried later; the others end."""
    await begin(journal, "damaged", 0.0)
    await begin(journal, "sound", 0.0)
    await link.nc.jetstream().publish(subjects.event_subject("damaged", KIND, "progressed"), b"{}")
    for name in ("damaged", "damaged", "sound"):
        await due(link, subjects.fired_deadline_subject(KIND, name))
    async with running(enforcer(link, journal)):
        await failed(journal, "sound")
        await eventually(lambda: _holds(link, 2))
    assert len([record for record in caplog.records if "can't be failed" in record.getMessage()]) == 1


async def _holds(link: Connection, count: int) -> bool:
    info = await link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_DUE_CONSUMER)
    return (info.num_pending, info.num_ack_pending) == (0, count)


async def test_success_against_the_deadline(link: Connection, journal: Journal) -> None:
    """Whichever comes first, an operation has exactly one end."""
    ended: set[Status] = set()
    runner = command_handler(journal)
    async with running(enforcer(link, journal)):
        for number in range(50):
            name = f"op-{number}"
            operation = await extend(journal, await begin(journal, name, 0.0), started())
            assert operation.live is not None
            await due(link, subjects.fired_deadline_subject(KIND, name))
            await asyncio.sleep(number / 10_000)
            with contextlib.suppress(OperationFinished):
                await runner.handle(name, Succeed(token=operation.live.token, result=b"{}"), budget=10)
            await eventually(lambda: is_acked(link, subjects.PROJECTOR_DUE_CONSUMER))
            [end] = await ends(journal, name)
            ended.add(await _status(journal, name, end))
    assert ended == {Status.SUCCEEDED, Status.FAILED}


async def _status(journal: Journal, operation_id: str, end: RecordedEvent) -> Status:
    events = await journal.events(operation_id)
    assert events[-1].id == end.id
    operation = fold_for_reader(None, events)
    assert operation is not None
    return operation.status


async def test_overtaken(link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation with a new event at the moment of its deadline fails all the same, after that event."""
    operation = await extend(journal, await begin(journal, "op-1", 0.0), started())
    hasty = await opened(link)
    append = hasty.append

    async def overtaken(*arguments: Any, **options: Any) -> RecordedEvent:
        monkeypatch.undo()
        await extend(journal, operation, LIFE[1])
        return await append(*arguments, **options)

    monkeypatch.setattr(hasty, "append", overtaken)
    await due(link, subjects.fired_deadline_subject(KIND, "op-1"))
    async with running(enforcer(link, hasty)):
        await failed(journal, "op-1")
        await eventually(lambda: is_acked(link, subjects.PROJECTOR_DUE_CONSUMER))
    assert [event.position for event in await journal.events("op-1")] == [1, 2, 3, 4]


async def test_a_deleted_consumer_while_requests_are_young(link: Connection, journal: Journal) -> None:
    """The scanner does not wait until its requests are old enough before it notices: it ends at once."""
    one = scanner(link, journal, scan_delay=30.0)
    await begin(journal, "op-1", 600.0)
    task = asyncio.create_task(one.run())
    await eventually(lambda: bool(one._young))
    await link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_DEADLINES_CONSUMER)
    with pytest.raises(ConsumerGone, match="run 'opstream provision', which makes it again, then restart"):
        await asyncio.wait_for(task, 5)


@pytest.mark.parametrize("loop", ["scanner", "enforcer"])
async def test_a_deleted_consumer(link: Connection, journal: Journal, loop: str) -> None:
    """A loop whose consumer is deleted ends, and so does its process."""
    one = scanner(link, journal) if loop == "scanner" else enforcer(link, journal)
    name = subjects.PROJECTOR_DEADLINES_CONSUMER if loop == "scanner" else subjects.PROJECTOR_DUE_CONSUMER
    task = asyncio.create_task(one.run())
    await eventually(lambda: one.is_ready)
    await link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, name)
    with pytest.raises(ConsumerGone, match=name):
        await asyncio.wait_for(task, 20)
    assert not one.is_ready


async def test_as_a_process(broker: Broker, link: Connection, journal: Journal) -> None:
    """A projector alone ends what is due; without one of its consumers it ends, and says why."""
    code = (
        "from opstream_projector.main import run; from opstream_projector.settings import Settings; "
        f"run(Settings(servers=({broker.url!r},)))"
    )
    await begin(journal, "op-1", 1.0)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
    try:
        await failed(journal, "op-1", within=20)
        await eventually(lambda: is_scheduled(link))
        await link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_DUE_CONSUMER)
        _, output = await asyncio.wait_for(child.communicate(), 20)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 1
    assert (
        output.decode()
        .strip()
        .splitlines()[-1]
        .endswith(
            "ConsumerGone: consumer projector_due of stream OPERATIONS was deleted: run 'opstream provision', which "
            "makes it again, then restart this process"
        )
    )
