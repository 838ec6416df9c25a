"""Submits of an action that no runner takes: the answer says so, and a service may be told to refuse them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from opstream_api.queues import waiting_reasons
from opstream_api.queues.runner_presence import RunnerPresence
from opstream_api.queues.waiting_reasons import WaitingReasons
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_schemas.names import Kind
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ANY_TIME = 0.001
"""Seconds: `--refuse-unserved-after` of a service that refuses an action as soon as its last runner has gone."""


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    """Helpers to run actions."""
    return RunnerStage(link, journal)


async def submit(api: Api, operation_id: str) -> Any:
    """Submit an action under an id."""
    return await api.submit(body={}, headers={"Operation-Id": operation_id})


async def test_the_answer_says_it(broker: Broker, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a runner it has the reason, and the operation is recorded; with one again, it has none."""
    monkeypatch.setattr(waiting_reasons, "_CACHE_SECONDS", 0.0)
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate)]):
        pass
    async with serving(broker.url) as api:
        answer = await submit(api, "op-1")
        assert answer.status_code == 202
        assert (answer.json()["blockedBy"]["reason"], answer.json()["waitingFor"]) == ("Runner", "Runner")
        assert "since" in answer.json()["blockedBy"]
        async with stage.runner([gated(gate)]):
            await stage.ended("op-1")
            answer = await submit(api, "op-2")
            assert (answer.status_code, answer.json().get("blockedBy")) == (202, None)
            assert "blockedBy" not in (await submit(api, "op-1")).json()


async def test_runners_of_an_earlier_version(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """The action was announced in a version that no runner has."""
    async with stage.runner([gated(HandlerGate())]):
        later = spec(gated(HandlerGate()).kind, version=2, input_type=dict[str, int])
        assert await announce_action(link, later)
        async with serving(broker.url) as api:
            answer = await submit(api, "op-1")
    assert answer.json()["blockedBy"] == {"reason": "Version", "version": 2, "runnerVersions": [1]}


async def test_it_is_refused(broker: Broker, stage: RunnerStage, journal: Journal) -> None:
    """Once the last runner was there too long ago: with the time, and the id to try again with. Nothing is recorded.
    What was accepted before is answered as ever, and with a runner the same request is accepted."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]), serving(broker.url) as api:
        assert (await submit(api, "before")).status_code == 202
        await gate.entered(1)
        gate.open()
        await stage.ended("before")
    async with serving(broker.url, refuse_unserved_after=ANY_TIME) as api:
        answer = await submit(api, "op-1")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["operationId"]) == (503, "ActionNotServed", "op-1")
        assert int(answer.headers["Retry-After"]) == 60
        assert "has had no runner since 20" in error["message"]
        assert "'Operation-Id: op-1'" in error["message"]
        assert await journal.events("op-1") == []
        repeated = await submit(api, "before")
        assert (repeated.status_code, repeated.json()["status"]) == (202, "Succeeded")
        async with stage.runner([gated(gate)]):

            async def is_taken() -> bool:
                return bool((await submit(api, "op-1")).status_code == 202)

            await eventually(is_taken)
            await stage.ended("op-1")


async def test_it_is_not_refused_without_a_reason(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """Neither before the time is over, nor if no record says when the last runner was there: 0.5.0 leaves none."""
    action = gated(HandlerGate())
    await announce_action(link, action.spec)
    await ensure_runner_consumer(link, action.spec)
    async with serving(broker.url, refuse_unserved_after=ANY_TIME) as api:
        answer = await submit(api, "op-1")
        assert (answer.status_code, answer.json()["blockedBy"]) == (202, {"reason": "Runner"})
    async with stage.runner([action]):
        pass
    async with serving(broker.url, refuse_unserved_after=3_600.0) as api:
        answer = await submit(api, "op-2")
        assert (answer.status_code, answer.json()["blockedBy"]["reason"]) == (202, "Runner")


async def test_it_costs_no_look_at_each_submit(
    broker: Broker, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an action has runners, one look serves all submits of some seconds; after these, a submit does not wait for
    the next one."""
    looks: list[Kind] = []
    look = WaitingReasons.look
    is_held = asyncio.Event()

    async def counted(self: WaitingReasons, kind: Kind, **how: Any) -> Any:
        looks.append(kind)
        if len(looks) > 2:
            await is_held.wait()
        return await look(self, kind, **how)

    monkeypatch.setattr(WaitingReasons, "look", counted)
    monkeypatch.setattr(RunnerPresence, "note_submit", lambda *_: None)
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate)]), serving(broker.url) as api:
        for number in range(10):
            assert (await submit(api, f"op-{number}")).status_code == 202
        assert len(looks) == 1
        monkeypatch.setattr("opstream_api.queues.runner_presence._SERVED_SECONDS", 0.0)
        looks.append(looks[0])
        for number in range(10, 13):
            assert (await submit(api, f"op-{number}")).status_code == 202
        await eventually(lambda: len(looks) > 2)
        is_held.set()
