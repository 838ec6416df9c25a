"""Priorities on a real broker: who begins first, what is not begun twice, and what a lost wake-up changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from opstream_journal import Connection, Journal
from opstream_journal.jetstream import rpc
from opstream_journal.queues.consumer_backlogs import read_backlogs
from opstream_runner import ActionContext, RetryAfter, action
from opstream_schemas import subjects
from opstream_schemas.operation.priority import PRIORITIES, QUEUED_PRIORITIES, Priority
from opstream_schemas.operation.state import Status
from tests.support.journal.journals import KIND
from tests.support.runner.stage import HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

HIGH, NORMAL, LOW = Priority


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
def gate() -> HandlerGate:
    return HandlerGate()


@action(str(KIND), priority="normal", backoff=0.01)
async def failing_once(request: Input, ctx: ActionContext) -> None:
    if ctx.attempt == 1:
        raise RetryAfter(0.01)


def prioritized(gate: HandlerGate, **options: Any) -> Any:
    return gated(gate, priority="normal", **options)


async def settled(stage: RunnerStage) -> None:
    """Wait until no queue has a message, delivered or not."""

    async def probe() -> bool:
        names = [subjects.runner_consumer(KIND, one) for one in ("", *QUEUED_PRIORITIES)]
        infos = [await stage.link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, name) for name in names]
        return not any((info.num_pending, info.num_ack_pending) != (0, 0) for info in infos)

    await eventually(probe)


def begun(gate: HandlerGate) -> list[str]:
    """The priorities of the attempts that have begun, in order; operations are named by them."""
    return [one.partition("-")[0] for one, _ in gate.attempts]


async def test_an_action_without_priorities_has_one_consumer(stage: RunnerStage, gate: HandlerGate) -> None:
    """The others are made for actions that ask for priorities, and for no other."""
    async with stage.runner([gated(gate)]):
        found = await read_backlogs(stage.link, subjects.OPERATIONS_STREAM)

    of_action = [name for name in found if (subjects.parse_runner_consumer(name) or ("",))[0] == KIND]
    assert of_action == [subjects.runner_consumer(KIND)]


async def test_high_goes_first_and_low_is_not_starved(stage: RunnerStage, gate: HandlerGate) -> None:
    """A runner with one slot begins six, three and one of ten, whatever waited first."""
    async with stage.runner([prioritized(gate)], concurrency=1):
        await stage.request_with(NORMAL, "blocker")
        await gate.entered(1)
        for priority in reversed(PRIORITIES):
            await stage.request_with(priority, *(f"{priority}-{number}" for number in range(20)))
        await eventually(lambda: has_queued(stage, 20))
        gate.open()
        await gate.entered(31)

    assert Counter(begun(gate)[1:31]) == {"high": 18, "normal": 9, "low": 3}


async def has_queued(stage: RunnerStage, count: int) -> bool:
    return [await stage.count_queued(one) for one in QUEUED_PRIORITIES] == [count, count]


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_an_idle_runner_begins_each_at_once_and_once(
    stage: RunnerStage, gate: HandlerGate, priority: Priority
) -> None:
    """Both messages of an operation are settled, and it has one attempt."""
    gate.open()
    async with stage.runner([prioritized(gate)]):
        ids = [f"op-{number}" for number in range(10)]
        await stage.request_with(priority, *ids)
        ended = [await stage.ended(one) for one in ids]
        await settled(stage)

    assert [(one.status, one.attempt) for one in ended] == [(Status.SUCCEEDED, 1)] * 10
    assert Counter(one for one, _ in gate.attempts) == Counter(ids)


@pytest.mark.parametrize("priority", QUEUED_PRIORITIES)
async def test_a_wake_up_that_is_lost(stage: RunnerStage, gate: HandlerGate, priority: Priority) -> None:
    """If the API was killed before it sent the wake-up, the request itself begins the operation."""
    gate.open()
    async with stage.runner([prioritized(gate)]):
        await stage.request_with(priority, "op-1", is_queued=False)

        assert (await stage.ended("op-1")).attempt == 1
        await settled(stage)


async def test_low_makes_room_for_normal(stage: RunnerStage, gate: HandlerGate) -> None:
    """Requests of low priority that came first are passed over, and begin later all the same."""
    async with stage.runner([prioritized(gate)], concurrency=1):
        await stage.request_with(NORMAL, "blocker")
        await gate.entered(1)
        await stage.request_with(LOW, *(f"low-{number}" for number in range(30)))
        await stage.request_with(NORMAL, *(f"normal-{number}" for number in range(9)))
        await eventually(lambda: has_waiting(stage))
        gate.open()
        await gate.entered(40)

    assert Counter(begun(gate)[1:13])["normal"] == 9
    assert Counter(begun(gate)) == {"blocker": 1, "normal": 9, "low": 30}


async def has_waiting(stage: RunnerStage) -> bool:
    return await stage.count_queued(LOW) == 30


async def test_a_retry_keeps_its_priority(stage: RunnerStage) -> None:
    """The next attempt waits in the queue of the operation's priority, so it is before those of a lower one."""
    async with stage.runner([failing_once]):
        for priority in PRIORITIES:
            await stage.request_with(priority, f"{priority}-1")
            assert (await stage.ended(f"{priority}-1")).attempt == 2
    found = {}
    for priority in PRIORITIES:
        wakes, _ = subjects.fired_messages_filters(KIND, f"{priority}-1")
        retry = wakes.removesuffix(">") + "retry"
        retries = [f"{retry}.{one}" if one in QUEUED_PRIORITIES else retry for one in PRIORITIES]
        stored = [await rpc.get_last(stage.link, subjects.OPERATIONS_STREAM, one) for one in retries]
        found[priority] = [one is not None for one in stored]

    assert found == {HIGH: [True, False, False], NORMAL: [False, True, False], LOW: [False, False, True]}


@pytest.mark.parametrize("priority", QUEUED_PRIORITIES)
async def test_a_runner_that_dies_with_it(stage: RunnerStage, gate: HandlerGate, priority: Priority) -> None:
    """An attempt that began from the queue of a priority is taken over from there, when its lease has run out."""
    async with stage.runner([prioritized(gate, lease=1.0)]) as first:
        await stage.request_with(priority, "op-1")
        await gate.entered(1)
        begun_by = (await stage.state("op-1")).live
        for task in first._tasks:
            task.cancel()
        first.begin_drain()
    gate.open()
    async with stage.runner([prioritized(gate, lease=1.0)]):
        ended = await stage.ended("op-1", within=20)

    assert begun_by is not None
    assert (ended.status, ended.attempt) == (Status.SUCCEEDED, 2)


async def test_priorities_that_were_taken_away(stage: RunnerStage, gate: HandlerGate) -> None:
    """A runner whose action has none any more serves all that the first queue has, in its order."""
    async with stage.runner([prioritized(gate)], concurrency=1):
        await stage.request_with(NORMAL, "blocker")
        await gate.entered(1)
        await stage.request_with(LOW, "low-1")
        await stage.request_with(HIGH, "high-1")
    gate.open()
    async with stage.runner([gated(gate)]):
        for one in ("low-1", "high-1"):
            assert (await stage.ended(one)).status is Status.SUCCEEDED
