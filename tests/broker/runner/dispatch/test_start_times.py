"""Start times on a real broker: nothing begins early, and a lost or doubled message changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opstream_journal import Connection, Journal
from opstream_journal.stores.timers import send_wake_up
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, RecordedEvent
from opstream_schemas.operation.dispatch_decision import START_REASON, SWEEP_REASON
from opstream_schemas.operation.state import Status
from tests.support.journal.journals import KIND, extend, folded
from tests.support.projector.deadlines import scheduled
from tests.support.projector.projection import utc_now
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

LOCK = subjects.lock_key(str(KIND).replace(":", "."), "a")
FAR = timedelta(hours=1)
NEAR = timedelta(seconds=1)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
def gate() -> HandlerGate:
    gate = HandlerGate()
    gate.open()
    return gate


async def requested(stage: RunnerStage, operation_id: str, after: timedelta, **changes: object) -> RecordedEvent:
    """Request an operation with a start time."""
    (event,) = await stage.request(operation_id, start_at=utc_now() + after, **changes)
    return event


async def start_timers(stage: RunnerStage) -> list[str]:
    """The subjects of the timers of start times."""
    return [one for one in await scheduled(stage.link) if one.endswith(f".{START_REASON}")]


async def test_it_begins_at_its_time(stage: RunnerStage, gate: HandlerGate) -> None:
    """Its message is done at once, so that others go on, also with `max_concurrency` 1; then it begins, not before."""
    async with stage.runner([gated(gate, max_concurrency=1)]):
        event = await requested(stage, "later", NEAR)
        await stage.request("now")
        await stage.ended("now")
        assert gate.attempts == [("now", 1)]
        operation = await stage.ended("later")
    assert operation.start_at is not None
    assert operation.started_at is not None
    assert operation.started_at >= operation.start_at
    assert operation.stream_sequence > event.sequence
    assert gate.attempts == [("now", 1), ("later", 1)]


async def test_a_time_that_has_passed(stage: RunnerStage, gate: HandlerGate) -> None:
    """It begins at once, without a timer."""
    async with stage.runner([gated(gate)]):
        await requested(stage, "op-1", -FAR)
        assert (await stage.ended("op-1")).attempt == 1
        assert await start_timers(stage) == []


async def test_canceled_before_its_time(stage: RunnerStage, gate: HandlerGate) -> None:
    """What is canceled before its time is not begun when its timer fires."""
    async with stage.runner([gated(gate)]):
        event = await requested(stage, "op-1", NEAR)
        await eventually(lambda: start_timers(stage))
        await extend(stage.journal, folded(None, event), Canceled())
        await eventually(lambda: no_timers(stage))
        await stage.settled()
    assert gate.attempts == []
    assert (await stage.state("op-1")).status is Status.CANCELED


async def no_timers(stage: RunnerStage) -> bool:
    return not await start_timers(stage)


async def test_messages_that_come_again(stage: RunnerStage, gate: HandlerGate) -> None:
    """Each message before its time sets the one timer again, in its place, and the operation begins once."""
    async with stage.runner([gated(gate, lease=1)]):
        event = await requested(stage, "op-1", timedelta(seconds=2))
        await eventually(lambda: start_timers(stage))
        for _ in range(2):
            await send_wake_up(stage.link, KIND, "op-1", SWEEP_REASON, armed_by=event.sequence)
        await stage.settled()
        assert (await start_timers(stage), gate.attempts) == (
            [subjects.timer_subject(KIND, "op-1", START_REASON)],
            [],
        )
        operation = await stage.ended("op-1")
    assert operation.started_at is not None
    assert operation.start_at is not None
    assert operation.started_at >= operation.start_at
    assert gate.attempts == [("op-1", 1)]


async def test_what_the_sweep_sends_is_too_early(stage: RunnerStage, gate: HandlerGate) -> None:
    """A projector that knows no start times sends a wake-up for what it takes for late: the runner waits all the same,
    and the timer that was lost is there again."""
    async with stage.runner([gated(gate)]):
        event = await requested(stage, "op-1", FAR)
        await eventually(lambda: start_timers(stage))
        await stage.link.nc.jetstream().purge_stream(subjects.TIMERS_STREAM)
        await send_wake_up(stage.link, KIND, "op-1", SWEEP_REASON, armed_by=event.sequence)
        await eventually(lambda: start_timers(stage))
    assert gate.attempts == []


async def test_an_exclusive_resource_is_free_until_then(stage: RunnerStage, gate: HandlerGate) -> None:
    """An operation that waits for its time holds no lock: another one runs meanwhile, and ends."""
    async with stage.runner([gated(gate, exclusive="resource")]):
        await requested(stage, "later", NEAR, hold=LOCK)
        await eventually(lambda: start_timers(stage))
        await stage.request("now", hold=LOCK)
        assert (await stage.ended("now")).attempt == 1
        assert gate.attempts == [("now", 1)]
        assert (await stage.ended("later")).attempt == 1


async def test_the_rate_counts_from_the_start(stage: RunnerStage, gate: HandlerGate) -> None:
    """A slot of a rate is reserved when the time has come, and the attempt begins in it."""
    async with stage.runner([gated(gate, rate="20/s")]):
        for number in range(3):
            await requested(stage, f"op-{number}", NEAR)
        ended = [await stage.ended(f"op-{number}") for number in range(3)]
    for one in ended:
        assert one.started_at is not None
        assert one.start_at is not None
        assert one.started_at >= one.start_at


async def test_a_clock_that_is_ahead(stage: RunnerStage, gate: HandlerGate) -> None:
    """A runner whose clock is an hour ahead, and who knows it from the broker, does not begin early."""
    ahead = stage.dependencies(now=lambda: utc_now() + FAR)
    stage.link.clock_skew = FAR.total_seconds()
    async with stage.runner([gated(gate)], dependencies=ahead):
        await requested(stage, "op-1", timedelta(minutes=30), deadline=2 * 86_400)
        await eventually(lambda: start_timers(stage))
    assert gate.attempts == []
