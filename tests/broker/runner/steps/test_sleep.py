"""Sleep on a real broker: an operation waits for a time without attempt, message, slot or lock, and goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_journal.jetstream import rpc
from opstream_journal.stores.timers import WakeUp, cancel_timers
from opstream_runner import InvalidStep, RecordingContext
from opstream_runner.authoring.action import collect_actions
from opstream_runner.runner import Runner
from opstream_schemas import subjects
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import RecordedEvent, WaitBegun
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import RequestCancel, decide
from opstream_schemas.operation.dispatch_decision import WAIT_REASON
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker
from tests.support.projector.deadlines import scheduled
from tests.support.runner import step_actions
from tests.support.runner.stage import RunnerStage
from tests.support.runner.step_actions import calls
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

NAPS = Kind("step", "naps")
ALONE = Kind("step", "naps-alone")
EVERY = [Kind("step", name) for name in ("naps", "naps-plain", "naps-apart", "naps-plain-apart")]
LONG = 3600.0


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def runner(stage: RunnerStage) -> AsyncIterator[Runner]:
    """A runner of the actions that sleep."""
    async with stage.runner(collect_actions([step_actions]), concurrency=2) as runner:
        yield runner


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the calls are noted."""
    return tmp_path / "calls"


async def begin(stage: RunnerStage, kind: Kind, file: Path, *ids: str, hold: str = "", **given: Any) -> None:
    """Request operations."""
    encoded = msgspec.json.encode({"file": str(file), **given})
    await stage.request(*(ids or ("op-1",)), kind=kind, given=encoded, hold=hold)


async def asleep(stage: RunnerStage, operation_id: str = "op-1") -> Operation:
    """Wait until an operation sleeps."""
    return await stage.reached(operation_id, lambda operation: operation.wait)


def times(events: list[RecordedEvent], name: str) -> list[float]:
    """When events of a name were recorded."""
    return [event.time.timestamp() for event in events if event.data is not None and event.data.name == name]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner")
async def test_it_goes_on_behind_the_sleep(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """Each sleep ends an attempt that does not count; the next one begins when it is over, and repeats no step."""
    await begin(stage, kind, file)
    ended = await stage.ended("op-1", within=20)
    assert (ended.status, ended.result) == (Status.SUCCEEDED, msgspec.Raw(b"3"))
    assert (ended.attempt, ended.attempts_used) == (3, 1)
    assert calls(file) == ["step 0", "unwound 1", "step 1", "unwound 2", "unwound 3"]
    events = await stage.events("op-1")
    begun, waits = times(events, "started"), [one.data for one in events if isinstance(one.data, WaitBegun)]
    assert [(one.attempt, one.wait, one.key, one.hold) for one in waits] == [
        (1, "sleep", "0", False),
        (2, "sleep", "1", False),
    ]
    for wait, next_begun in zip(waits, begun[1:], strict=True):
        assert wait.until is not None
        assert wait.until.timestamp() - 0.05 <= next_begun < wait.until.timestamp() + 2


async def test_nothing_is_held_meanwhile(stage: RunnerStage, runner: Runner, file: Path) -> None:
    """A hundred sleepers on two slots: all sleep at once, the broker has no message of theirs, and others run."""
    ids = [f"sleeper-{number}" for number in range(100)]
    await begin(stage, NAPS, file, *ids, seconds=(LONG,))
    for one in ids:
        operation = await asleep(stage, one)
        assert (operation.status, operation.live) == (Status.RUNNING, None)
    await eventually(lambda: not any(one.running for one in runner._dispatchers.values()))
    await eventually(lambda: _has_nothing_left(stage.link), within=10)
    assert sum(".wait" in one for one in await scheduled(stage.link)) == len(ids)
    await begin(stage, NAPS, file, "quick", seconds=())
    assert (await stage.ended("quick")).status is Status.SUCCEEDED


async def test_it_survives_everything(broker: Broker, stage: RunnerStage, file: Path) -> None:
    """Runner and broker are stopped in the sleep, and started when it is over: it goes on then, once."""
    async with stage.runner(collect_actions([step_actions])):
        await begin(stage, NAPS, file, seconds=(1.0,))
        until = (await asleep(stage)).waiting
        assert until is not None
    broker.kill()
    broker.start()
    await eventually(lambda: time.time() > until.retry_at.timestamp(), within=5)
    async with stage.runner(collect_actions([step_actions])):
        ended = await stage.ended("op-1", within=20)
    assert ended.status is Status.SUCCEEDED
    assert calls(file) == ["step 0", "unwound 1", "unwound 2"]
    assert (await stage.names("op-1")).count("waiting") == 1


@pytest.mark.usefixtures("runner")
async def test_a_cancel_in_the_sleep(stage: RunnerStage, file: Path) -> None:
    """It ends at once, since nothing of it runs; its timer causes nothing."""
    await begin(stage, NAPS, file, seconds=(LONG,))
    await asleep(stage)
    data = decide(await stage.state("op-1"), RequestCancel(by="ann"))
    assert data is not None
    await stage.append("op-1", data)
    canceled = await stage.state("op-1")
    assert canceled.status is Status.CANCELED
    fire = subjects.fired_wake_subject(NAPS, "op-1", WAIT_REASON)
    await rpc.publish(stage.link, fire, msgspec.json.encode(WakeUp(canceled.stream_sequence - 1)), {})
    await eventually(lambda: _has_nothing_left(stage.link), within=10)
    assert await stage.state("op-1") == canceled


@pytest.mark.usefixtures("runner")
async def test_an_early_message_begins_nothing(stage: RunnerStage, file: Path) -> None:
    """Only the wake-up of this very sleep does; for any other one its timer is scheduled again."""
    await begin(stage, NAPS, file, seconds=(LONG,))
    operation = await asleep(stage)
    fire = subjects.fired_wake_subject(NAPS, "op-1", "hold")
    await cancel_timers(stage.link, "op-1")
    await rpc.publish(stage.link, fire, msgspec.json.encode(WakeUp(7)), {})
    await eventually(lambda: _has_timer(stage.link), within=10)
    assert (await stage.state("op-1")).position == operation.position


async def _has_nothing_left(link: Connection) -> bool:
    info = await link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, subjects.runner_consumer(NAPS))
    return (info.num_pending, info.num_ack_pending) == (0, 0)


async def _has_timer(link: Connection) -> bool:
    return any(one.endswith("op-1.wait") for one in await scheduled(link))


@pytest.mark.usefixtures("runner")
async def test_the_deadline_comes_first(stage: RunnerStage, file: Path) -> None:
    """A sleep beyond the deadline ends with it, as `DeadlineExceeded`."""
    given = msgspec.json.encode({"file": str(file), "seconds": [LONG]})
    await stage.request("op-1", kind=NAPS, given=given, deadline=1.5)
    ended = await stage.ended("op-1", within=20)
    assert ended.error is not None
    assert ended.error.code == ErrorCode.DEADLINE_EXCEEDED


LOCK = subjects.lock_key("action.step.naps-alone", "42")


@pytest.mark.usefixtures("runner")
async def test_an_exclusive_resource(stage: RunnerStage, file: Path) -> None:
    """Another operation has the resource while this one sleeps."""
    await begin(stage, ALONE, file, "first", hold=LOCK, seconds=(1.5,))
    await asleep(stage, "first")
    encoded = msgspec.json.encode({"file": str(file), "seconds": []})
    await stage.request("second", kind=ALONE, given=encoded, hold=LOCK)
    second, first = await stage.ended("second"), await stage.ended("first")
    assert second.finished_at is not None
    assert first.finished_at is not None
    assert second.finished_at < first.finished_at


@pytest.mark.usefixtures("runner")
async def test_a_resource_that_is_kept(stage: RunnerStage, file: Path) -> None:
    """With `hold=True` the other operation waits until the sleeper has ended."""
    given = msgspec.json.encode({"file": str(file), "seconds": [1.0], "hold": True})
    await stage.request("first", kind=ALONE, given=given, hold=LOCK)
    await asleep(stage, "first")
    encoded = msgspec.json.encode({"file": str(file), "seconds": []})
    await stage.request("second", kind=ALONE, given=encoded, hold=LOCK)
    second, first = await stage.ended("second", within=20), await stage.ended("first", within=20)
    assert second.started_at is not None
    assert first.finished_at is not None
    assert first.finished_at < second.started_at


@pytest.mark.usefixtures("runner")
async def test_it_queues_again(stage: RunnerStage, file: Path) -> None:
    """A sleeper whose resource is another one's at the end of the sleep waits for it, and then goes on, first in the
    queue, since it was requested first."""
    await begin(stage, ALONE, file, "first", hold=LOCK, seconds=(0.5,))
    await asleep(stage, "first")
    given = msgspec.json.encode({"file": str(file), "seconds": [1.5], "hold": True})
    await stage.request("second", kind=ALONE, given=given, hold=LOCK)
    await asleep(stage, "second")
    third = msgspec.json.encode({"file": str(file), "seconds": []})
    await stage.request("third", kind=ALONE, given=third, hold=LOCK)
    ends = [await stage.ended(one, within=20) for one in ("second", "first", "third")]
    moments = [one.finished_at for one in ends]
    assert moments == sorted(moment for moment in moments if moment is not None)
    assert [one.status for one in ends] == [Status.SUCCEEDED] * 3


@pytest.mark.usefixtures("runner")
async def test_sleeps_that_are_over_at_once(stage: RunnerStage, file: Path) -> None:
    """A sleep of no time, or until a moment that has passed, ends no attempt."""
    await begin(stage, NAPS, file, seconds=(0, 0.0))
    ended = await stage.ended("op-1")
    assert (ended.attempt, await stage.names("op-1")) == (
        1,
        ["requested", "started", "step-succeeded", "step-succeeded", "succeeded"],
    )


async def test_names_of_sleeps() -> None:
    """Two sleeps of one name, and times that are none, are mistakes; a test's context does not sleep."""
    ctx = RecordingContext()
    await ctx.sleep(LONG)
    await ctx.step("sleep", lambda: 1)  # a step may have the name of a sleep
    await ctx.sleep_until(datetime(2999, 1, 1, tzinfo=UTC), "later")
    assert [one.wait for one in ctx.waits] == ["sleep", "later"]
    with pytest.raises(InvalidStep, match=r"wait 'sleep' is there twice: at .*test_sleep.py:\d+, and at .*test_sleep"):
        await ctx.sleep(1)
    for wrong in (-1, float("nan"), float("inf"), True, "1", 10**12):
        with pytest.raises(InvalidStep, match="a sleep takes 0 to 315360000 seconds"):
            ctx.sleep(wrong, "other")
    with pytest.raises(InvalidStep, match="takes a datetime with a time zone"):
        ctx.sleep_until(datetime(2999, 1, 1), "other")  # noqa: DTZ001
    await asyncio.sleep(0)
