"""What an operation waits for that has not started, as its status says it: real runners, real consumers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from opstream_api.queues import waiting_reasons
from opstream_journal import Connection, Journal
from opstream_journal.jetstream import rpc
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
async def api(broker: Broker, link: Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A service that gives reasons from the first moment, and looks them up for each read."""
    monkeypatch.setattr(waiting_reasons, "_GRACE", 0.0)
    monkeypatch.setattr(waiting_reasons, "_CACHE_SECONDS", 0.0)
    async with serving(broker.url) as api:
        yield api


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    """Helpers to run actions."""
    return RunnerStage(link, journal)


async def reason(api: Api, operation_id: str) -> Any:
    """Return the member of an operation's status."""
    answer = await api.status(operation_id)
    assert answer.status_code == 200
    return answer.json().get("waitingFor")


async def waits_for(api: Api, operation_id: str, expected: str | None) -> None:
    """Wait until the status has this reason."""
    await eventually(lambda: _is_reason(api, operation_id, expected))


async def _is_reason(api: Api, operation_id: str, expected: str | None) -> bool:
    return bool(await reason(api, operation_id) == expected)


async def test_an_operation_without_a_runner(api: Api, stage: RunnerStage) -> None:
    """It says so after the last runner has gone, and starts with the next one."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        pass
    await stage.request("op-1")
    await waits_for(api, "op-1", "Runner")
    gate.open()
    async with stage.runner([gated(gate)]):
        await stage.ended("op-1")
    assert await reason(api, "op-1") is None


async def test_an_operation_whose_runners_are_busy(api: Api, stage: RunnerStage) -> None:
    """The first one runs, the second one waits for the only slot."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)], concurrency=1):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request("op-2")
        await waits_for(api, "op-2", "FreeRunner")
        assert await reason(api, "op-1") is None
        gate.open()
        await stage.ended("op-2")


async def test_an_operation_beyond_the_concurrency(api: Api, stage: RunnerStage) -> None:
    """The runner has free slots, and the action may not use them."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, max_concurrency=1)], concurrency=4):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request("op-2")
        await waits_for(api, "op-2", "Concurrency")
        gate.open()
        await stage.ended("op-2")


async def test_an_operation_beyond_the_rate(api: Api, stage: RunnerStage) -> None:
    """A runner has put it aside until its slot comes."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate, rate="1/h")]):
        await stage.request("op-1")
        await stage.ended("op-1")
        await stage.request("op-2")
        await waits_for(api, "op-2", "Rate")


async def test_no_reason_at_first(api: Api, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that was just requested has none, and costs no request of the broker."""
    monkeypatch.setattr(waiting_reasons, "_GRACE", 60.0)
    monkeypatch.setattr(waiting_reasons.WaitingReasons, "look", None)
    async with stage.runner([gated(HandlerGate())]):
        pass
    await stage.request("op-1")
    assert await reason(api, "op-1") is None


async def test_polls_share_one_look(api: Api, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many operations of an action wait, the broker is asked once in a while."""
    monkeypatch.setattr(waiting_reasons, "_CACHE_SECONDS", 60.0)
    async with stage.runner([gated(HandlerGate())]):
        pass
    names = [f"op-{number}" for number in range(20)]
    await stage.request(*names)
    looks: list[str] = []
    call = rpc.call

    async def counted(connection: Connection, subject: str, *rest: Any, **more: Any) -> Any:
        looks.extend([subject] if ".CONSUMER.INFO." in subject else [])
        return await call(connection, subject, *rest, **more)

    monkeypatch.setattr(rpc, "call", counted)
    found = await asyncio.gather(*(reason(api, name) for name in names * 2))
    assert found == ["Runner"] * 40
    assert len(looks) == 1


async def test_a_reason_that_can_not_be_read_is_left_out(
    api: Api, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status comes from the journal, and does not depend on it. A consumer that is gone means: no runner."""
    async with stage.runner([gated(HandlerGate())]):
        pass
    await stage.request("op-1")
    call = rpc.call

    async def garbled(connection: Connection, subject: str, *rest: Any, **more: Any) -> Any:
        answer = await call(connection, subject, *rest, **more)
        if ".CONSUMER.INFO." in subject:
            answer.data = replacements[0]
        return answer

    monkeypatch.setattr(rpc, "call", garbled)
    replacements = [b"no JSON"]
    assert await reason(api, "op-1") is None
    replacements = [b'{"error": {"code": 503, "description": "no leader"}}']
    assert await reason(api, "op-1") is None
    replacements = [b'{"error": {"code": 404, "description": "consumer not found"}}']
    assert await reason(api, "op-1") == "Runner"
