"""Limits over all runners, with two on one broker: how many attempts start in a period, and how many run at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Drifted, Journal
from opstream_journal.jetstream.kv import KeyValueBucket
from opstream_journal.provisioning.provision import ensure_runner_consumer, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.runtime.broker_monitor import BrokerMonitor
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores.rate_limiter import RateLimiter
from opstream_runner import Action, ActionContext, RetryAfter, action
from opstream_runner.dispatch import admission as gate
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.events import Started
from opstream_schemas.operation.rate_limit import parse_rate
from opstream_schemas.operation.state import Status
from tests.support.journal.journals import KIND
from tests.support.runner.exclusive_actions import Log, ask, exclusive, releasing
from tests.support.runner.stage import HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

SLACK = 0.1
"""Seconds from the moment at which an attempt may begin to the time in its event, on a busy machine."""


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
def opened() -> HandlerGate:
    """An open gate."""
    opened = HandlerGate()
    opened.open()
    return opened


def failing_once(rate: str) -> Action[..., Any]:
    """An action whose first attempt asks for another at once."""

    @action(str(KIND), rate=rate)
    async def handler(request: Input, ctx: ActionContext) -> int:
        if ctx.attempt == 1:
            raise RetryAfter(0, "again")
        return ctx.attempt

    return handler


async def begun(stage: RunnerStage, *ids: str) -> list[float]:
    """Return the start of each attempt of the operations, in order, once all have ended."""
    moments = []
    for one in ids:
        assert (await stage.ended(one, within=20)).status is Status.SUCCEEDED
        moments += [e.time.timestamp() for e in await stage.events(one) if isinstance(e.data, Started)]
    return sorted(moments)


def assert_keeps(moments: list[float], count: int, spacing: float) -> None:
    """Assert that no more than `count` attempts, and those that became due since then, have started."""
    for i, one in enumerate(moments):
        for j in range(i + count, len(moments)):
            assert moments[j] - one >= (j - i - count + 1) * spacing - SLACK, moments


async def test_a_rate_holds_over_all_runners(stage: RunnerStage, opened: HandlerGate) -> None:
    """Four in a second: four at once, and then one each quarter of a second; waiting operations take no slot."""
    offered = gated(opened, rate="4/s")
    names = [f"op-{number:02}" for number in range(10)]
    async with stage.runner([offered]), stage.runner([offered]):
        await ask(stage, offered, *names)
        await eventually(lambda: len(opened.attempts) >= 4)
        await stage.settled()
        moments = await begun(stage, *names)

    assert_keeps(moments, 4, 0.25)
    assert moments[-1] - moments[0] < 6 * 0.25 + 1.0
    assert moments[3] - moments[0] < 0.25


async def test_each_attempt_takes_a_slot(stage: RunnerStage) -> None:
    """A retry needs a slot of the rate, too."""
    offered = failing_once("2/s")
    async with stage.runner([offered]), stage.runner([offered]):
        await ask(stage, offered, "op-1", "op-2")
        moments = await begun(stage, "op-1", "op-2")

    assert len(moments) == 4
    assert_keeps(moments, 2, 0.5)


async def test_missed_slots_are_not_made_up_for(
    stage: RunnerStage, opened: HandlerGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all wake-ups fired without a runner, the next runner starts no more than the rate allows."""
    monkeypatch.setattr(gate, "_SLOT_TOLERANCE", 0.0)
    offered = gated(opened, rate="2/s")
    names = [f"op-{number}" for number in range(6)]
    async with stage.runner([offered]):
        await ask(stage, offered, *names)
        await opened.entered(2)
        await stage.settled()

    async def has_missed() -> bool:
        return (await stage.consumer()).num_pending == 4

    await eventually(has_missed, within=10)
    async with stage.runner([offered]):
        moments = await begun(stage, *names)

    assert len(moments) == 6
    assert_keeps(moments[2:], 2, 0.5)


async def test_a_reserved_slot_belongs_to_its_wake_up(stage: RunnerStage, opened: HandlerGate) -> None:
    """The delivery that reserved the slot has acknowledged the request, or still will. So no attempt starts under that
    ticket, even once the slot has come: without its message it would have no successor if its runner died."""
    offered = gated(opened, rate="4/s")
    pacer = RateLimiter(stage.link, KIND, parse_rate("4/s"))
    early = time.time() - 100
    for other in range(4):
        await pacer.reserve(f"other-{other}", early)
    slot = await pacer.reserve("op-1.1.rate", early)
    assert early < slot < time.time()
    (requested,) = await ask(stage, offered, "op-1")
    async with stage.runner([offered]):
        await stage.ended("op-1")

    (started,) = [data for data in await stage.datas("op-1") if isinstance(data, Started)]
    assert started.ticket > requested.sequence
    wake = await stage.link.nc.jetstream().get_msg(subjects.OPERATIONS_STREAM, started.ticket)
    assert subjects.is_wake(wake.subject or "")


async def test_a_runner_whose_clock_is_ahead(stage: RunnerStage, opened: HandlerGate) -> None:
    """It takes slots in the broker's time, so other runners don't stand still for the hour that it is ahead."""

    def ahead() -> datetime:
        return datetime.now(UTC) + timedelta(hours=1)

    offered = gated(opened, rate="4/s")
    names = [f"op-{number}" for number in range(6)]
    await BrokerMonitor(stage.link, Conditions(), now=ahead).look()
    async with stage.runner([offered], dependencies=stage.dependencies(now=ahead)):
        await ask(stage, offered, *names)
        for one in names:
            assert (await stage.ended(one, within=20)).status is Status.SUCCEEDED

    entry = await KeyValueBucket(stage.link, uniform).get(f"r.{KIND.resource}.{KIND.action}")
    assert msgspec.json.decode(entry.data)["due"] < time.time() + 2


async def test_a_clock_that_was_ahead(stage: RunnerStage) -> None:
    """What it reserved before it was measured, delays the others by its slots, not by its hour."""
    pacer = RateLimiter(stage.link, KIND, parse_rate("1/m"))
    now = time.time()
    assert await pacer.reserve("op-1.1.rate", now + 3600) == 0.0

    assert await pacer.reserve("op-2.1.rate", now) == pytest.approx(now + 60)


async def test_an_operation_that_waits_for_its_lock_uses_no_slot(
    stage: RunnerStage, link: Connection, journal: Journal
) -> None:
    """Six on one resource at two in a second: the slots are used in turn, none is lost, and none overlaps; also with
    the projector, which wakes operations that own the lock and do not start."""
    log = Log()
    offered = exclusive(log, rate="2/s")
    names = [f"op-{number}" for number in range(6)]
    async with stage.runner([offered]), stage.runner([offered]), releasing(link, journal):
        await ask(stage, offered, *names)
        moments = await begun(stage, *names)

    assert log.overlaps == []
    assert_keeps(moments, 2, 0.5)
    assert moments[-1] - moments[0] < 4 * 0.5 + 1.0


async def test_actions_do_not_share_a_rate(stage: RunnerStage, opened: HandlerGate) -> None:
    """Each action has its own rate."""
    one = gated(opened, rate="1/h")
    other = exclusive(Log(), name="book:remove", exclusive="", rate="1/h")
    async with stage.runner([one, other]):
        await ask(stage, one, "op-1")
        await ask(stage, other, "op-2")
        await begun(stage, "op-1", "op-2")


async def test_no_more_than_max_concurrency_run_at_once(stage: RunnerStage) -> None:
    """Three at once over two runners of four slots each."""
    held = HandlerGate()
    offered = gated(held, max_concurrency=3)
    names = [f"op-{number}" for number in range(12)]
    async with stage.runner([offered]), stage.runner([offered]):
        await ask(stage, offered, *names)
        await held.entered(3)
        held.open()
        await begun(stage, *names)

    assert held.most == 3


async def test_a_changed_max_concurrency_is_drift_until_it_is_applied(stage: RunnerStage, link: Connection) -> None:
    """The message names the command; after it the new number is in force, with operations waiting."""
    few, more = limited(1), limited(2)
    await ensure_runner_consumer(link, few)
    with pytest.raises(Drifted, match=r"max_ack_pending is 1, should be 2.*--update' with the same --actions"):
        await ensure_runner_consumer(link, more)

    assert (await provision(link, Sizing(), [more])).drift != ()
    report = await provision(link, Sizing(), [more], is_update=True)
    assert (report.drift, len(report.updated)) == ((), 1)
    await ensure_runner_consumer(link, more)
    assert (await stage.consumer()).config.max_ack_pending == 2


def limited(number: int) -> ActionSpec:
    """An action with this `max_concurrency`."""
    return gated(HandlerGate(), max_concurrency=number).spec
