"""The sweep: what lost its timer, its wake-up, its request or its lease goes on, and nothing runs twice at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from nats.js.api import DeliverPolicy

from opstream_journal import Connection, Journal
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing, runner_consumer
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import send_wake_up
from opstream_projector.after_effects import LockReleaser
from opstream_projector.sweeper import CONDITION, COUNTER, Sweeper
from opstream_runner import Action, ActionContext, RetryAfter, action
from opstream_runner.runner import Runner
from opstream_schemas import subjects
from opstream_schemas.events import AttemptFailed, Failed
from opstream_schemas.operation.priority import QUEUED_PRIORITIES
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.operation.state import Status
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, linked, opened
from tests.support.projector.consistency import rebuilt
from tests.support.projector.deadlines import command_handler, enforcer, scheduled, scheduler
from tests.support.projector.projection import projector, running, settled, utc_now
from tests.support.runner.stage import CONSUMER, HandlerGate, Input, RunnerStage, gated
from tests.support.schemas.histories import started, waits
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

GRACE = timedelta(seconds=1)
LOCK = subjects.lock_key(str(KIND).replace(":", "."), "a")
OTHER_LOCK = subjects.lock_key(str(KIND).replace(":", "."), "b")


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


class Sweep:
    """A projector whose sweep the test calls."""

    def __init__(self, sweeper: Sweeper, conditions: Conditions) -> None:
        self.sweeper = sweeper
        self.conditions = conditions

    async def until_moved(self, count: int = 1, within: float = 15.0) -> None:
        """Walk until so many operations were moved on."""
        moved = 0

        async def probe() -> bool:
            nonlocal moved
            moved += await self.sweeper.walk()
            return moved >= count

        await eventually(probe, within=within, poll=0.1)
        assert moved == count


@contextlib.asynccontextmanager
async def sweeping(link: Connection, journal: Journal, **options: Any) -> AsyncIterator[Sweep]:
    """Run a projector with all its loops but the scanner of deadlines, which waits for too long."""
    conditions = Conditions()
    locks = ResourceLocks(link, journal)
    await locks.start()
    options = {"grace": GRACE, "interval": 3_600.0, "share": 1.0} | options
    sweeper = Sweeper(link, command_handler(journal), locks, conditions, **options)
    effects = [scheduler(link), LockReleaser(locks)]
    async with running(projector(link, journal, effects=effects), enforcer(link, journal), sweeper):
        await eventually(lambda: sweeper.is_started)
        yield Sweep(sweeper, conditions)


def retrying(gate: HandlerGate, delay: float) -> Action[..., Any]:
    """An action whose first attempt fails for a while; the second one waits at a gate."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> Any:
        if ctx.attempt == 1:
            raise RetryAfter(delay)
        await gate.wait(ctx)
        return ctx.attempt

    return handler


async def wait_for_retry(stage: RunnerStage, operation_id: str) -> None:
    """Wait until the operation's first attempt has failed, and its wake-up is scheduled."""
    await stage.reached(operation_id, lambda operation: operation.waiting)
    await stage.settled()


async def empty_timers(link: Connection, how: str) -> None:
    """Lose all timers."""
    js = link.nc.jetstream()
    if how == "purged":
        await js.purge_stream(subjects.TIMERS_STREAM)
    else:
        await js.delete_stream(subjects.TIMERS_STREAM)
        await provision(link, Sizing())
    assert await scheduled(link) == {}


@pytest.mark.parametrize("how", ["purged", "recreated"])
async def test_a_lost_retry(stage: RunnerStage, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A wake-up that is lost with TIMERS is sent again once it is late: the operation goes on, and the log says so."""
    gate = HandlerGate()
    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([retrying(gate, 1.0)]):
        await stage.request("op-1")
        await wait_for_retry(stage, "op-1")
        await empty_timers(stage.link, how)
        with caplog.at_level(logging.WARNING):
            await sweep.until_moved(1)
        await gate.entered(1, within=60)  # a new TIMERS is sourced after some twenty seconds
        gate.open()
        operation = await stage.ended("op-1")
        assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 2)
        assert "operation op-1: its next attempt was due at" in caplog.text
        members = msgspec.to_builtins(sweep.conditions.members())
        assert members["counters"] == {COUNTER: 1}
        assert [one["name"] for one in members["conditions"]] == [CONDITION]
        await settled(stage.link)
        assert await sweep.sweeper.walk() == 0
        assert sweep.conditions.current == []


async def test_a_lost_end_of_a_sleep(stage: RunnerStage) -> None:
    """An operation that sleeps, whose timer is lost with TIMERS, goes on a little later."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> int:
        await ctx.sleep(1.0)
        return ctx.attempt

    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([handler]):
        await stage.request("op-1")
        await stage.reached("op-1", lambda operation: operation.wait)
        await stage.settled()
        await empty_timers(stage.link, "purged")
        await sweep.until_moved(1)
        operation = await stage.ended("op-1")
        assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 2)


async def test_a_sleeper_whose_runner_died(stage: RunnerStage) -> None:
    """It still owns its lock, since its runner died before it let that go. The projector gives it to the next one, and
    leaves an operation alone that has claimed its lock again."""
    locks = ResourceLocks(stage.link, stage.journal)
    await locks.start()
    asked, again, waiting = await asyncio.gather(
        *(stage.request(one, hold=lock) for one, lock in (("op-1", LOCK), ("op-2", OTHER_LOCK), ("op-3", LOCK)))
    )
    for (event,), lock, let_go in ((asked, LOCK, 0), (again, OTHER_LOCK, 2**53)):
        claim = Claim(operation_id=event.operation_id, sequence=event.sequence, kind=str(KIND), let_go=let_go)
        assert await locks.restore_owner(lock, claim)
        await stage.append(event.operation_id, started(ticket=event.sequence))
    claim = Claim(operation_id="op-3", sequence=waiting[0].sequence, kind=str(KIND))
    await locks.enqueue(LOCK, await stage.state("op-3"), claim, is_watchful=False)
    for one in ("op-1", "op-2"):
        await stage.append(one, waits(until=utc_now() + timedelta(hours=1)))
    async with sweeping(stage.link, stage.journal):

        async def owners() -> list[str]:
            found = [await locks.owner(lock) for lock in (LOCK, OTHER_LOCK)]
            return [one.operation_id for one in found if one is not None]

        async def is_given_on() -> bool:
            return await owners() == ["op-3", "op-2"]

        await eventually(is_given_on, within=10)
        await settled(stage.link)
        assert await owners() == ["op-3", "op-2"]


async def test_a_lost_start_time(stage: RunnerStage) -> None:
    """An operation whose start time was lost with TIMERS begins once that is late; one whose time has not come is left
    alone, and has its timer again as soon as anything looks at it."""
    gate = HandlerGate()
    gate.open()
    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([gated(gate)]):
        await stage.request("near", start_at=utc_now() + timedelta(seconds=1))
        await stage.request("far", start_at=utc_now() + timedelta(hours=1))
        await eventually(lambda: _count_scheduled(stage, 2))
        await empty_timers(stage.link, "purged")
        await settled(stage.link)
        assert await sweep.sweeper.walk() == 0
        await sweep.until_moved(1)
        operation = await stage.ended("near")
        assert operation.started_at is not None
        assert operation.start_at is not None
        assert operation.started_at >= operation.start_at
    assert gate.attempts == [("near", 1)]


async def test_a_lost_deadline(stage: RunnerStage) -> None:
    """An operation whose deadline was lost with TIMERS fails once that is late, without any runner."""
    async with sweeping(stage.link, stage.journal) as sweep:
        await stage.request("op-1", deadline=2.0)
        await eventually(lambda: scheduled(stage.link))
        await empty_timers(stage.link, "purged")
        await sweep.until_moved(1)
        operation = await stage.ended("op-1")
        assert operation.error is not None
        assert operation.error.code == "DeadlineExceeded"


async def test_nothing_is_late(stage: RunnerStage) -> None:
    """Operations that run, wait for their timers, for a lock or in the queue of busy runners are left alone."""
    gate = HandlerGate()
    busy = gated(gate, max_concurrency=1, exclusive="resource")
    async with sweeping(stage.link, stage.journal, grace=timedelta(0)) as sweep, stage.runner([busy], concurrency=1):
        await stage.request("runs", hold=LOCK)
        await gate.entered(1)
        await stage.request("is-queued", hold=LOCK)
        await stage.request("is-behind", hold=OTHER_LOCK)
        await settled(stage.link)
        await eventually(lambda: _is_old(stage, "is-behind"))
        assert await sweep.sweeper.walk() == 0
        assert sweep.conditions.members() == {}
        gate.open()
        for one in ("runs", "is-queued", "is-behind"):
            assert (await stage.ended(one)).status is Status.SUCCEEDED


async def _is_old(stage: RunnerStage, operation_id: str) -> bool:
    return time.time() - (await stage.state(operation_id)).created_at.timestamp() > 0.5


async def test_a_request_that_was_skipped(stage: RunnerStage) -> None:
    """Requests that a recreated consumer does not deliver are woken; those that it will deliver are not."""
    gate = HandlerGate()
    gate.open()
    offered = gated(gate)
    async with sweeping(stage.link, stage.journal) as sweep:
        await stage.request("op-1", "op-2")
        config = runner_consumer(offered.spec)
        config.deliver_policy = DeliverPolicy.NEW
        await stage.link.nc.jetstream().add_consumer(subjects.OPERATIONS_STREAM, config)
        await stage.request("op-3")
        await settled(stage.link)
        await sweep.until_moved(2)
        async with _pulling(stage, offered):
            for one in ("op-1", "op-2", "op-3"):
                assert (await stage.ended(one)).attempt == 1


@contextlib.asynccontextmanager
async def _pulling(stage: RunnerStage, offered: Action[..., Any]) -> AsyncIterator[None]:
    """A runner on the consumer as it is: one that offers its action would refuse it."""
    runner = Runner(stage.link, stage.dependencies(), [offered], name="test", concurrency=2)
    runner.start()
    try:
        yield
    finally:
        await runner.stop()


async def test_a_lost_wake_up_from_a_lock(stage: RunnerStage) -> None:
    """An operation that left no trace in its lock's queue, because the bucket was emptied, goes on."""
    gate = HandlerGate()
    exclusive = gated(gate, exclusive="resource")
    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([exclusive]):
        await stage.request("first", hold=LOCK)
        await gate.entered(1)
        await stage.request("second", hold=LOCK)
        await eventually(lambda: _acknowledged_all_but(stage, 1))
        await stage.link.nc.jetstream().purge_stream(subjects.bucket_stream(subjects.HOLDS_BUCKET))
        gate.open()
        await stage.ended("first")
        await settled(stage.link)
        assert (await stage.state("second")).status is Status.NOT_STARTED
        await sweep.until_moved(1)
        assert (await stage.ended("second")).status is Status.SUCCEEDED


async def _acknowledged_all_but(stage: RunnerStage, count: int) -> bool:
    info = await stage.consumer()
    return (info.num_pending, info.num_ack_pending) == (0, count)


async def test_a_lost_slot_of_a_rate(stage: RunnerStage) -> None:
    """An operation whose slot of the rate was lost with TIMERS begins nevertheless."""
    gate = HandlerGate()
    gate.open()
    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([gated(gate, rate="1/s")]):
        await stage.request("op-1", "op-2", "op-3", "op-4")
        await eventually(lambda: _count_scheduled(stage, 3))
        await empty_timers(stage.link, "purged")

        async def all_ended() -> bool:
            await sweep.sweeper.walk()
            return all([(await stage.state(f"op-{number}")).is_terminal for number in range(1, 5)])

        await eventually(all_ended, within=20, poll=0.1)
        assert [(await stage.state(f"op-{number}")).attempt for number in range(1, 5)] == [1, 1, 1, 1]


async def _count_scheduled(stage: RunnerStage, count: int) -> bool:
    return len(await scheduled(stage.link)) == count


async def test_an_attempt_without_a_lease(stage: RunnerStage) -> None:
    """An attempt of a dead runner whose message the broker has lost is ended, uncounted, and another one follows."""
    gate = HandlerGate()
    exclusive = gated(gate, lease=1)
    async with (
        sweeping(stage.link, stage.journal, grace=timedelta(seconds=0.2)) as sweep,
        stage.runner([exclusive]),
    ):
        await stage.request("op-1")
        await gate.entered(1)
        live = (await stage.state("op-1")).live
        assert live is not None
        # As if a predecessor had acknowledged it: the broker goes by the stream sequence.
        await _forget_message(stage)
        await settled(stage.link)
        await sweep.until_moved(1)
        failed = [data for data in await stage.datas("op-1") if isinstance(data, AttemptFailed)]
        assert [(one.error.code, one.counted) for one in failed] == [("RunnerLost", False)]
        await gate.entered(2)
        assert gate.most == 1
        assert gate.cancelled == [1]
        gate.open()
        operation = await stage.ended("op-1")
        assert (operation.status, operation.attempt, operation.attempts_used) == (Status.SUCCEEDED, 2, 1)


async def _forget_message(stage: RunnerStage) -> None:
    """Acknowledge the message of the running attempt behind its back."""
    await stage.link.nc.publish(f"$JS.ACK.{subjects.OPERATIONS_STREAM}.{CONSUMER}.1.1.1.0.0", b"+ACK")
    await stage.settled()


@pytest.mark.parametrize("number", range(3))
async def test_a_doubled_wake_up(broker: Broker, stage: RunnerStage, number: int) -> None:
    """With the true wake-up and two of the sweep at once, and two runners, the handler runs once."""
    gate = HandlerGate()
    retried = retrying(gate, 0.1)
    async with linked(broker.url) as other, stage.runner([retried]), stage.runner([retried], link=other):
        await stage.request("op-1")
        waiting = (await stage.reached("op-1", lambda operation: operation.waiting)).waiting
        assert waiting is not None
        await asyncio.gather(
            *(
                send_wake_up(link, KIND, "op-1", why, armed_by=waiting.sequence)
                for link in (stage.link, other)
                for why in ("overdue", "retry")
            )
        )
        await gate.entered(1)
        gate.open()
        operation = await stage.ended("op-1")
        await stage.settled()
        assert (operation.attempt, len(gate.contexts), gate.most) == (2, 1, 1)


async def test_two_projectors(broker: Broker, stage: RunnerStage) -> None:
    """Two sweeps at the same moment end an overdue operation once."""
    async with (
        linked(broker.url) as other,
        sweeping(stage.link, stage.journal) as one,
        sweeping(other, await opened(other)) as two,
    ):
        await stage.request("op-1", deadline=1.0)
        await eventually(lambda: scheduled(stage.link))
        await empty_timers(stage.link, "purged")

        async def both() -> bool:
            return any(await asyncio.gather(one.sweeper.walk(), two.sweeper.walk()))

        await eventually(both, within=15, poll=0.1)
        await stage.ended("op-1")
        assert sum(isinstance(data, Failed) for data in await stage.datas("op-1")) == 1


async def test_a_journal_that_was_cut(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """After a forced rebuild (docs/adr/0032) an operation of which the disk has lost the end goes on: the broker thinks
    that its request was delivered, so the sweep moves it on, and its work is done a second time."""
    gate = HandlerGate()
    gate.open()
    async with sweeping(link, stage.journal), stage.runner([gated(gate)]):
        await stage.request("op-1")
        await stage.ended("op-1")
        await stage.settled()
        await settled(link)
    broker.stop()
    files = StreamFiles(broker.store, subjects.OPERATIONS_STREAM)
    _, started, _ = files.records(files.blocks[0])
    files.truncate(files.blocks[0], size=started.offset)
    files.remove_index()
    broker.start()
    assert await link.wait_connected(20)

    assert len((await rebuilt(link, stage.journal)).kept) == 1
    assert (await rebuilt(link, stage.journal, is_forced=True)).rewritten == 1
    async with sweeping(link, stage.journal) as sweep, stage.runner([gated(gate)]):
        await sweep.until_moved(within=40)
        assert (await stage.ended("op-1", within=20)).status is Status.SUCCEEDED
    assert gate.attempts == [("op-1", 1), ("op-1", 1)]


@pytest.mark.parametrize("priority", QUEUED_PRIORITIES)
async def test_what_waits_in_the_queue_of_its_priority(stage: RunnerStage, priority: str) -> None:
    """It is not lost, for however long it waits there and although the first queue is behind it; nor is its attempt."""
    gate = HandlerGate()
    prioritized = gated(gate, priority="normal", lease=1.0)
    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([prioritized], concurrency=1):
        await stage.request_with(priority, "running")
        await gate.entered(1)
        await stage.request_with(priority, *(f"op-{number}" for number in range(3)))
        await stage.request_with("normal", "other")
        for _ in range(4):
            await asyncio.sleep(1.1)  # so that all of it is late, and an attempt without a lease has been for a lease
            assert await sweep.sweeper.walk() == 0
        assert gate.attempts == [("running", 1)]
        gate.open()
        for one in ("running", "op-0", "op-1", "op-2", "other"):
            assert (await stage.ended(one)).attempt == 1


async def test_priorities_that_were_taken_away(stage: RunnerStage) -> None:
    """What waits in a queue that no runner looks into any more is woken in the one that each action has."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate, priority="normal")]):
        await stage.settled()
    await stage.request_with("low", "op-1", "op-2")
    await eventually(lambda: _is_queued(stage, 2))
    puller = await stage.link.nc.jetstream().pull_subscribe_bind(CONSUMER, subjects.OPERATIONS_STREAM)
    for message in await puller.fetch(2, timeout=5):
        await message.ack_sync()  # as a runner has passed them
    async with sweeping(stage.link, stage.journal) as sweep, stage.runner([gated(gate)]):
        await settled(stage.link)
        await sweep.until_moved(2)
        for one in ("op-1", "op-2"):
            assert (await stage.ended(one)).attempt == 1


async def _is_queued(stage: RunnerStage, count: int) -> bool:
    return await stage.count_queued("low") == count
