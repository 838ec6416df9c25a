"""A paused action: nothing of it begins, whatever happens to its runners and to the broker's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
import pytest

from opstream_journal import Connection, Journal, NotProvisioned, retry_until_ready
from opstream_journal.actions.action_controls import ActionControls, shown_pause
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.queues.consumer_backlogs import ConsumerBacklog, read_backlog
from opstream_runner import ActionContext, RetryAfter, action
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionPause
from opstream_schemas.events import Canceled
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import PRIORITIES, QUEUED_PRIORITIES
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import KIND, linked, opened
from tests.support.runner.stage import CONSUMER, HandlerGate, Input, RunnerStage, gated
from tests.support.system import kill_actions
from tests.support.system.processes import COMMAND, Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OTHER: Final = Kind("shop", "order")
QUICK: Final = Kind("kill", "quick")


@pytest.fixture
def controls(link: Connection) -> ActionControls:
    """What operators do."""
    return ActionControls(link)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    """Helpers to run actions."""
    return RunnerStage(link, journal)


def pause(**changes: Any) -> ActionPause:
    return ActionPause(since=datetime.now(UTC), by="ann", reason="the storage is being moved", **changes)


async def backlog(link: Connection, name: str = CONSUMER) -> ConsumerBacklog:
    return await read_backlog(link, subjects.OPERATIONS_STREAM, name)


@action(str(OTHER))
async def order(request: Input, ctx: ActionContext) -> int:
    """An action that is not paused: once it has ended, the broker has passed over what is paused."""
    return ctx.attempt


async def begins_nothing(stage: RunnerStage, *ids: str) -> None:
    """Check that the broker delivers what is not paused, and kept these."""
    marker = str(uuid.uuid4())
    await stage.request(marker, kind=OTHER)
    await stage.ended(marker)
    assert [await stage.names(one) for one in ids] == [["requested"]] * len(ids)
    assert (await backlog(stage.link)).num_pending >= len(ids)


async def test_nothing_begins_until_it_is_resumed(stage: RunnerStage, controls: ActionControls) -> None:
    """A runner that pulls at that moment gets nothing, a second runner does not either, and a cancel needs none. Once
    the action is resumed, each operation runs once."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate), order]):
        await stage.request("before")
        await stage.ended("before")
        assert await controls.pause(KIND, pause())
        await stage.request("one", "two")
        await begins_nothing(stage, "one", "two")
        async with stage.runner([gated(gate)]):
            await begins_nothing(stage, "one", "two")
        await stage.append("two", Canceled(reason="no need"))
        assert await controls.resume(KIND)
        assert (await stage.ended("one")).attempt == 1
        await stage.settled()
    assert gate.attempts == [("before", 1), ("one", 1)]
    assert (await stage.state("two")).status is Status.CANCELED


async def test_what_runs_goes_on_and_its_retry_waits(
    stage: RunnerStage, controls: ActionControls, link: Connection
) -> None:
    """The attempts that run when the action is paused keep their leases, and end. The next attempt of one that failed
    is due meanwhile, and waits; it can be canceled."""
    gate = HandlerGate()

    @action(str(KIND), lease=1.0)
    async def handler(request: Input, ctx: ActionContext) -> int:
        await gate.wait(ctx)
        if ctx.operation_id == "again" and ctx.attempt == 1:
            raise RetryAfter(0.01, "not now")
        return ctx.attempt

    async with stage.runner([handler, order]):
        await stage.request("one", "again")
        await gate.entered(2)
        assert await controls.pause(KIND, pause())
        heartbeats = await stage.spy(f"$JS.ACK.{subjects.OPERATIONS_STREAM}.{CONSUMER}.>")
        # For longer than its lease, by its own signs of life: three in a lease for each of the two.
        await eventually(lambda: sum(data == b"+WPI" for _, data in heartbeats.seen) >= 8, within=10)
        gate.open()
        assert (await stage.ended("one")).attempt == 1
        await stage.reached("again", lambda one: one.waiting)

        async def is_due() -> bool:
            return (await backlog(link)).num_pending == 1

        await eventually(is_due)  # the broker has fired its timer
        await stage.request("marker", kind=OTHER)
        await stage.ended("marker")
        assert (await stage.names("again")).count("started") == 1
        await controls.resume(KIND)
        assert (await stage.ended("again")).attempt == 2
    assert sorted(gate.attempts) == [("again", 1), ("again", 2), ("one", 1)]


async def test_a_pause_ends_by_itself(stage: RunnerStage, controls: ActionControls) -> None:
    """At its time the broker goes on, without any process of ours; a later pause replaces the one before."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate), order]):
        assert await controls.pause(KIND, pause())
        await stage.request("one")
        await begins_nothing(stage, "one")
        until = datetime.now(UTC) + timedelta(seconds=0.3)
        assert await controls.pause(KIND, pause(until=until))
        await stage.ended("one")
        started = (await stage.events("one"))[1]
        assert started.time >= until - timedelta(milliseconds=50)


async def test_no_configuration_resumes_it(stage: RunnerStage, controls: ActionControls, link: Connection) -> None:
    """Neither a runner that starts, nor 'opstream provision --update', which changes the consumer's configuration."""
    gate = HandlerGate()
    long = gated(gate, lease=60.0)
    async with stage.runner([gated(gate)]):
        pass
    assert await controls.pause(KIND, pause())
    report = await provision(link, Sizing(), [long.spec], is_update=True)
    assert any("ack_wait" in one for one in report.updated)
    async with stage.runner([long, order]):
        await stage.request("one")
        await begins_nothing(stage, "one")
        assert (await backlog(link)).paused
        gate.open()
        await controls.resume(KIND)
        await stage.ended("one")


async def test_who_did_it(stage: RunnerStage, controls: ActionControls, link: Connection) -> None:
    """The record tells who, since when and why while it is about the consumer's very pause. One that `nats consumer
    pause` has made has none, and a resume forgets the record."""
    async with stage.runner([gated(HandlerGate())]):
        pass
    made = pause(until=datetime.now(UTC) + timedelta(hours=1))
    assert await controls.pause(KIND, made)
    assert shown_pause((await backlog(link)).paused_until, await controls.of(KIND)) == made
    other = datetime.now(UTC) + timedelta(hours=2)
    body = msgspec.json.encode({"pause_until": other})
    await link.nc.request(f"$JS.API.CONSUMER.PAUSE.{subjects.OPERATIONS_STREAM}.{CONSUMER}", body)
    assert shown_pause((await backlog(link)).paused_until, await controls.of(KIND)) == ActionPause(until=other)
    endless = pause()
    assert await controls.pause(KIND, endless)
    assert shown_pause((await backlog(link)).paused_until, await controls.of(KIND)) == endless
    assert await controls.resume(KIND)
    assert (await controls.of(KIND)).pause is None
    assert shown_pause((await backlog(link)).paused_until, await controls.of(KIND)) is None


async def test_what_can_not_be_paused(controls: ActionControls, stage: RunnerStage, link: Connection) -> None:
    """An action that no runner has announced; and any, on a broker that is not provisioned for it yet."""
    assert not await controls.pause(KIND, pause())
    assert not await controls.resume(KIND)
    async with stage.runner([gated(HandlerGate())]):
        pass
    await link.nc.jetstream().delete_stream("KV_controls")
    with pytest.raises(NotProvisioned, match="opstream provision --update"):
        await controls.pause(KIND, pause())
    assert not (await backlog(link)).paused


async def test_an_action_with_priorities(stage: RunnerStage, controls: ActionControls) -> None:
    """Nothing begins from any of its queues while it is paused, and all of it afterwards."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate, priority="normal")]):
        assert await controls.pause(KIND, pause())
        for priority in PRIORITIES:
            await stage.request_with(priority, f"{priority}-1")
        for queue in QUEUED_PRIORITIES:
            assert (await backlog(stage.link, subjects.runner_consumer(KIND, queue))).paused
            await eventually(lambda queue=queue: stage.count_queued(queue))
        assert gate.attempts == []
        assert await controls.resume(KIND)
        for priority in PRIORITIES:
            assert (await stage.ended(f"{priority}-1", within=20)).attempt == 1


@contextlib.contextmanager
def killable_runners(broker: Broker, count: int) -> Iterator[list[Process]]:
    """Runners of `kill_actions`, each a process."""
    folder = Path(kill_actions.__file__).parent
    given = ("runner", "--nats", broker.url, "--actions", "kill_actions")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Process(*given, command=COMMAND, cwd=folder)) for _ in range(count)]


async def test_all_runners_are_killed(
    broker: Broker, stage: RunnerStage, controls: ActionControls, link: Connection
) -> None:
    """While the action is paused, all its runners are killed and others start: nothing runs. Once it is resumed, each
    operation runs once."""
    ids = [f"op-{number}" for number in range(20)]
    with killable_runners(broker, 2) as runners:
        for one in runners:
            await asyncio.to_thread(one.wait_for, "running kill:")
        assert await controls.pause(QUICK, pause())
        await stage.request(*ids, kind=QUICK, given=b'{"number": 1}')
        for one in runners:
            one.send(signal.SIGKILL)
    with killable_runners(broker, 2) as runners:
        for one in runners:
            await asyncio.to_thread(one.wait_for, "running kill:")
        await stage.request("marker", kind=Kind("kill", "slow"), given=b'{"number": 1}')
        await stage.ended("marker", within=20)
        assert [await stage.names(one) for one in ids] == [["requested"]] * len(ids)
        assert (await backlog(link, subjects.runner_consumer(QUICK))).num_pending == len(ids)
        assert await controls.resume(QUICK)
        for one in ids:
            await stage.ended(one, within=20)
    assert [await stage.names(one) for one in ids] == [["requested", "started", "succeeded"]] * len(ids)


@pytest.fixture
async def cluster_stage(cluster: Cluster, cluster_link: Connection) -> AsyncIterator[RunnerStage]:
    """Helpers to run actions on three servers, through a server that stays."""
    async with linked(*cluster.urls) as link:
        yield RunnerStage(link, await opened(link))


async def test_a_pause_survives_elections(cluster: Cluster, cluster_stage: RunnerStage) -> None:
    """The server that leads the consumer is killed: its successor keeps the pause."""
    stage, link = cluster_stage, cluster_stage.link
    controls, gate = ActionControls(link), HandlerGate()
    gate.open()
    async with stage.runner([gated(gate), order]):
        assert await controls.pause(KIND, pause())
        await stage.request("one")
        leader = (await stage.consumer()).cluster
        assert leader is not None
        (killed,) = [node for node in cluster.nodes if node.name == leader.leader]
        killed.kill()

        async def has_another_leader() -> bool:
            with contextlib.suppress(nats.errors.Error):
                now = (await stage.consumer()).cluster
                return now is not None and now.leader not in {None, killed.name}
            return False

        await eventually(has_another_leader, within=30)
        await begins_nothing(stage, "one")
        # The killed server may have led the stream of the records, too, which has its own election.
        assert await retry_until_ready(link, lambda: controls.resume(KIND), 30)
        await stage.ended("one", within=20)
    assert gate.attempts == [("one", 1)]
