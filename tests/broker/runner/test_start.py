"""Offering actions: the consumers come first, then the announcements; a runner ends when its consumer is deleted."""

from __future__ import annotations

import pytest
from nats.js.api import ConsumerConfig

from opstream_journal import Connection, ConsumerGone, Drifted, Journal, find_action
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_schemas import subjects
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.runner.stage import CONSUMER, HandlerGate, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def test_what_is_offered_is_announced(stage: RunnerStage) -> None:
    """A started runner has its consumer, is in the catalog, and is ready."""
    action = gated(HandlerGate(), lease=9)
    async with stage.runner([action]) as runner:
        assert await find_action(stage.link, KIND) == action.spec
        assert (await stage.consumer()).config.ack_wait == 9
        assert (runner.is_ready, runner.kinds) == (True, [KIND])


async def test_a_differing_consumer_is_refused(stage: RunnerStage) -> None:
    """A consumer with another configuration is not changed, and no action is announced."""
    await ensure_runner_consumer(stage.link, gated(HandlerGate(), lease=9).spec)
    with pytest.raises(Drifted, match=f"consumer {CONSUMER}: ack_wait is 9s, should be 30s.*provision --update"):
        async with stage.runner([gated(HandlerGate())]):
            pytest.fail("it started")
    assert await find_action(stage.link, KIND) is None
    assert (await stage.consumer()).config.ack_wait == 9


async def test_a_journal_with_a_short_age_is_refused(stage: RunnerStage) -> None:
    """An action whose operations may outlive the journal's age limit is not offered; one that just fits is."""
    day = 86_400.0
    too_long = gated(HandlerGate(), deadline=29 * day)
    with pytest.raises(Drifted, match=f"action {KIND}: .* are 31d, and the journal keeps events for 30d"):
        async with stage.runner([too_long]):
            pytest.fail("it started")
    assert await find_action(stage.link, KIND) is None
    async with stage.runner([gated(HandlerGate(), deadline=28 * day)]) as runner:
        assert runner.is_ready


async def test_a_consumer_for_something_else_is_refused(stage: RunnerStage) -> None:
    """A consumer of that name with other subjects is not changed."""
    foreign = ConsumerConfig(durable_name=CONSUMER, filter_subjects=["operations.*.car.wash.requested"])
    await stage.link.nc.jetstream().add_consumer(subjects.OPERATIONS_STREAM, foreign)
    with pytest.raises(Drifted, match="filter_subjects"):
        async with stage.runner([gated(HandlerGate())]):
            pytest.fail("it started")


async def test_a_lower_version_warns(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """A runner with an older version of an action works, logs a warning, and keeps the newer announcement."""
    newer = gated(HandlerGate(), version=2)
    gate = HandlerGate()
    gate.open()
    async with stage.runner([newer]):
        pass
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await stage.ended("op-1")
    assert await find_action(stage.link, KIND) == newer.spec
    assert "book:upload-start: a higher version than 1 is announced" in caplog.text


async def test_a_deleted_consumer_ends_the_runner(stage: RunnerStage) -> None:
    """A runner whose consumer is deleted is no longer ready, and reports why."""
    async with stage.runner([gated(HandlerGate())]) as runner:

        async def is_pulled() -> bool:
            return bool((await stage.consumer()).num_waiting)

        # A pull during the deletion gets no response, and its timeout is long.
        await eventually(is_pulled)
        await stage.link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, CONSUMER)
        failure = await eventually(lambda: runner.failure.done() and runner.failure.result())
        assert not runner.is_ready
    assert isinstance(failure, ConsumerGone)


async def test_a_runner_without_a_broker_is_not_ready(broker: Broker, stage: RunnerStage) -> None:
    """A runner is not ready while the broker is unreachable, and ready again once it is back."""
    async with stage.runner([gated(HandlerGate())]) as runner:
        broker.kill()
        await eventually(lambda: not runner.is_ready)
        broker.start()
        await eventually(lambda: runner.is_ready)
