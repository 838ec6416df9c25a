"""Why an open operation does not run, as its status says it: real runners, real consumers, a runner that is killed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from opstream_api.operations.status import StatusReader
from opstream_api.queues import waiting_reasons
from opstream_journal import Connection, Journal
from opstream_journal.queues import runner_records
from opstream_journal.queues.runner_records import RunnerRecords
from opstream_runner import Action, ActionContext, ActionError, action, presence
from opstream_schemas import subjects
from opstream_schemas.events import CancelRequested, Started
from opstream_schemas.names import Kind
from tests.support.access.desk import serving_with_keys
from tests.support.api.service import UPLOAD, Api, serving
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.runner.stage import HandlerGate, Input, RunnerStage, gated
from tests.support.schemas.histories import started, waits
from tests.support.system import kill_actions
from tests.support.system.processes import Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

HELD: Final = Kind("kill", "held")
QUICK: Final = 0.3
KILLABLE: Final = f"""
import sys
from opstream_journal.queues import runner_records
runner_records.WRITE_INTERVAL, runner_records.LIFETIME = {QUICK}, 1.0
from opstream.__main__ import main
sys.argv = ["opstream", *sys.argv[1:]]
main()
"""
"""A runner's process whose presence records live for a second."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service gives reasons from the first moment, and looks them up for each read."""
    monkeypatch.setattr(waiting_reasons, "_GRACE", 0.0)
    monkeypatch.setattr(waiting_reasons, "_CACHE_SECONDS", 0.0)
    monkeypatch.setattr("opstream_api.queues.queue_positions._OWNER_SECONDS", 0.0)


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service."""
    async with serving(broker.url) as api:
        yield api


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    """Helpers to run actions."""
    return RunnerStage(link, journal)


async def blocked_by(api: Api, operation_id: str) -> Any:
    """Return the member of an operation's status."""
    answer = await api.status(operation_id)
    assert answer.status_code == 200
    return answer.json().get("blockedBy")


async def is_blocked(api: Api, operation_id: str, reason: str) -> dict[str, Any]:
    """Wait until the status has this reason, and return the member."""

    async def probe() -> Any:
        found = await blocked_by(api, operation_id)
        return found if found and found["reason"] == reason else None

    found: dict[str, Any] = await eventually(probe)
    return found


async def test_no_runner_since(api: Api, stage: RunnerStage) -> None:
    """It says since when there is none: a runner that stops says so."""
    before = datetime.now(UTC).replace(microsecond=0)
    async with stage.runner([gated(HandlerGate())]):
        pass
    await stage.request("op-1")
    found = await is_blocked(api, "op-1", "Runner")
    assert before <= datetime.fromisoformat(found["since"]) <= datetime.now(UTC)


async def test_a_sleep(api: Api, stage: RunnerStage) -> None:
    """It is Running, and waits for a time, which is no retry; afterwards it waits for a runner, as anything else."""
    async with stage.runner([gated(HandlerGate())]):
        pass
    await stage.request("op-1")
    await stage.append("op-1", started())
    until = datetime.now(UTC) + timedelta(hours=1)
    await stage.append("op-1", waits(until=until, key="7"))
    answer = await api.status("op-1")
    status = answer.json()
    assert answer.headers["Retry-After"] == "60"
    assert (status["status"], status["waitingFor"], status.get("retryAt")) == ("Running", "Sleep", None)
    assert status["blockedBy"] == {"reason": "Sleep", "until": status["blockedBy"]["until"], "message": "sleep"}
    assert abs(datetime.fromisoformat(status["blockedBy"]["until"]) - until) < timedelta(milliseconds=1)

    await stage.request("op-2")
    await stage.append("op-2", started())
    await stage.append("op-2", waits(until=datetime.now(UTC)))
    found = await is_blocked(api, "op-2", "Runner")
    assert (await api.status("op-2")).json()["waitingFor"] == "Runner", found


async def test_a_killed_runner(api: Api, broker: Broker, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it works, what waits for its only slot waits for a free runner; once it is killed, for any. The consumer
    alone can't tell: until another runner comes, the broker counts the killed one's message as in work."""
    monkeypatch.setattr(runner_records, "LIFETIME", 1.0)
    with killable_runner(broker) as process:
        await stage.request("op-1", kind=HELD, given=b'{"number": 1}')
        await stage.reached("op-1", lambda one: one.live, within=30)
        await stage.request("op-2", kind=HELD, given=b'{"number": 2}')
        busy = await is_blocked(api, "op-2", "FreeRunner")
        assert (busy["runners"], busy["slots"]) == (1, 1)
        assert await blocked_by(api, "op-1") is None
        os.kill(process.pid, signal.SIGKILL)
        gone = await is_blocked(api, "op-2", "Runner")
        assert datetime.now(UTC) - datetime.fromisoformat(gone["since"]) < timedelta(minutes=1)


@contextlib.contextmanager
def killable_runner(broker: Broker) -> Iterator[Process]:
    """A runner's process of `kill_actions` with one slot."""
    folder = Path(kill_actions.__file__).parent
    given = ("runner", "--nats", broker.url, "--actions", "kill_actions", "--concurrency", "1")
    with Process(*given, command=(sys.executable, "-P", "-c", KILLABLE), cwd=folder) as process:
        yield process


async def test_behind_others_of_its_priority(api: Api, stage: RunnerStage) -> None:
    """What waits in the queue of its priority waits for a free runner, also if the first queue is empty."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, priority="normal")], concurrency=1):
        await stage.request_with("normal", "running")
        await gate.entered(1)
        await stage.request_with("high", "op-1")
        await stage.request_with("low", "op-2")
        for one in ("op-1", "op-2"):
            assert (await is_blocked(api, one, "FreeRunner"))["slots"] == 1
        name = subjects.runner_consumer(KIND)
        puller = await stage.link.nc.jetstream().pull_subscribe_bind(name, subjects.OPERATIONS_STREAM)
        for message in await puller.fetch(2, timeout=5):
            await message.ack_sync()  # as a runner passes over them
        assert (await is_blocked(api, "op-2", "FreeRunner"))["slots"] == 1
        gate.open()
        for one in ("op-1", "op-2"):
            await stage.ended(one)


async def test_more_than_may_run(api: Api, stage: RunnerStage) -> None:
    """The action allows fewer than its runners could run."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, max_concurrency=1)], concurrency=4):
        await stage.request("op-1", "op-2")
        await gate.entered(1)
        (waiting,) = {"op-1", "op-2"} - {gate.attempts[0][0]}
        assert await is_blocked(api, waiting, "Concurrency") == {"reason": "Concurrency", "slots": 1}
        gate.open()


async def test_the_slot_of_a_rate(api: Api, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says when its slot comes, which is read once; and what waits behind others for a runner is not said to wait
    for the rate."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate, rate="1/h")]):
        await stage.request("op-1")
        await stage.ended("op-1")
        await stage.request("op-2")
        found = await is_blocked(api, "op-2", "Rate")
        until = datetime.fromisoformat(found["until"])
        assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1, seconds=1)
        monkeypatch.setattr("opstream_api.queues.rate_slots.parse_slot", None)
        assert await blocked_by(api, "op-2") == found
    monkeypatch.undo()
    monkeypatch.setattr(waiting_reasons, "_GRACE", 0.0)
    await stage.request("op-3")
    await is_blocked(api, "op-3", "Runner")


async def test_a_later_version(api: Api, stage: RunnerStage) -> None:
    """The runner has an earlier version than the operation was requested for."""
    async with stage.runner([gated(HandlerGate())]):
        await stage.request("op-1", action_version=2)
        found = await is_blocked(api, "op-1", "Version")
    assert found == {"reason": "Version", "version": 2, "runnerVersions": [1]}


async def test_the_pause_before_a_retry(api: Api, stage: RunnerStage) -> None:
    """It has the attempt that failed, its error, and the time."""

    @action(str(KIND), backoff=60.0, backoff_max=60.0)
    async def fails(request: Input, ctx: ActionContext) -> Any:
        raise RuntimeError("the disk is on fire")

    async with stage.runner([fails]):
        await stage.request("op-1")
        state = await stage.reached("op-1", lambda one: one.waiting)
    status = (await api.status("op-1")).json()
    found = status["blockedBy"]
    assert (found["reason"], found["attempt"], found["until"]) == ("Retry", 1, status["retryAt"])
    assert found["error"] == msgspec.to_builtins(state.attempt_error)
    assert "waitingFor" not in status


@pytest.fixture
def exclusive() -> tuple[HandlerGate, Action[..., Any]]:
    """An exclusive action that the test holds, as the service's callers submit it."""
    gate = HandlerGate()

    @action(str(UPLOAD), exclusive="resource")
    async def handler(request: Input, ctx: ActionContext) -> Any:
        await gate.wait(ctx)
        if ctx.attempt < 0:
            raise ActionError("Never", "")
        return ctx.attempt

    return gate, handler


async def test_who_has_the_resource(
    broker: Broker, link: Connection, stage: RunnerStage, exclusive: tuple[HandlerGate, Action[..., Any]]
) -> None:
    """Its owner is named to those who may read it: its own caller, and one who reads all of the tenant. Another caller
    gets the position alone, and so does one with a status token."""
    gate, handler = exclusive
    async with stage.runner([handler]), serving_with_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", f"submit:{UPLOAD}", "read")
        bob = await desk.caller("acme", "bob", f"submit:{UPLOAD}", "read")
        eve = await desk.caller("acme", "eve", "read:all")
        for caller, name in ((ann, "first"), (ann, "second"), (bob, "third")):
            answer = await caller.submit(body={}, headers={"Operation-Id": name, "Prefer": "status-token=60"})
            assert answer.status_code == 202
            if name == "first":
                await gate.entered(1)
        token_url = answer.headers["Operation-Location"]
        await eventually(lambda: _is_queued(ann, "second", 1))
        await eventually(lambda: _is_queued(bob, "third", 2))
        of_ann = (await ann.get("/status/second")).json()["blockedBy"]
        of_bob = (await bob.get("/status/third")).json()["blockedBy"]
        of_eve = (await eve.get("/status/third")).json()["blockedBy"]
        of_token = (await desk.api.client.get(token_url)).json()["blockedBy"]
        assert of_ann == {"reason": "Resource", "position": 1, "operationId": "first"}
        assert of_bob == of_token == {"reason": "Resource", "position": 2}
        assert of_eve == {"reason": "Resource", "position": 2, "operationId": "first"}
        gate.open()


async def _is_queued(caller: Any, name: str, position: int) -> bool:
    status = (await caller.get(f"/status/{name}")).json()
    return bool(status.get("queuePosition") == position)


async def test_an_owner_that_has_ended_is_not_named(
    api: Api, stage: RunnerStage, exclusive: tuple[HandlerGate, Action[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that dies after the end of an operation leaves its lock behind, until the projector releases it. The
    journal decides whether it is held."""
    gate, handler = exclusive
    async with stage.runner([handler]):
        for name in ("one", "two"):
            assert (await api.submit(body={}, headers={"Operation-Id": name})).status_code == 202
            if name == "one":
                await gate.entered(1)
        assert (await is_blocked(api, "two", "Resource"))["operationId"] == "one"
        monkeypatch.setattr("opstream_journal.stores.resource_locks.ResourceLocks.release", _nothing)
        monkeypatch.setattr("opstream_runner.dispatch.admission.AdmissionControl.try_release_lock", _nothing)
        gate.open()
        await stage.ended("one")
        assert await blocked_by(api, "two") == {"reason": "Resource", "position": 1}


async def _nothing(*_: Any, **__: Any) -> None:
    """A release that never comes."""


async def test_when_its_end_was_requested(
    api: Api, stage: RunnerStage, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running operation that is to stop shows since when: the time of the event, which is read once."""
    async with stage.runner([gated(HandlerGate())]):
        pass
    await stage.request("op-1")
    await stage.append("op-1", Started(attempt=1, runner="lost", token="t", ticket=1, lease=60.0))
    assert (await api.cancel("op-1")).status_code == 200
    event = (await journal.events("op-1"))[-1]
    assert isinstance(event.data, CancelRequested)
    status = (await api.status("op-1")).json()
    assert (status["status"], status["cancelRequested"]) == ("Running", True)
    assert datetime.fromisoformat(status["cancelRequestedAt"]) == event.time
    monkeypatch.setattr(Journal, "last_of_type", None)
    assert (await api.status("op-1")).json() == status


async def test_what_runs_costs_nothing(api: Api, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll of a running operation, or of one that was just requested, asks the broker for nothing more."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        monkeypatch.setattr(StatusReader, "_find_blocker", None)
        monkeypatch.setattr(StatusReader, "cancel_requested_at", None)
        assert await blocked_by(api, "op-1") is None
        monkeypatch.undo()
        gate.open()
    monkeypatch.setattr(waiting_reasons, "_GRACE", 60.0)
    monkeypatch.setattr(waiting_reasons.WaitingReasons, "look", None)
    await stage.request("op-2")
    assert await blocked_by(api, "op-2") is None


async def test_without_presence_records(
    api: Api, stage: RunnerStage, link: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a broker that is not provisioned for them yet, runners work, with one warning that says what to do, and
    statuses say what the consumers tell."""
    monkeypatch.setattr(presence, "WARN_AFTER", 0.0)
    monkeypatch.setattr(presence, "WRITE_INTERVAL", 0.01)
    await link.nc.jetstream().delete_stream("KV_runners")
    gate = HandlerGate()
    async with stage.runner([gated(gate)], concurrency=1):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request("op-2")
        assert await is_blocked(api, "op-2", "FreeRunner") == {"reason": "FreeRunner"}
        gate.open()
        await stage.ended("op-2")
    (warning,) = [one for one in caplog.records if one.name == presence.__name__ and one.levelno >= logging.WARNING]
    assert "no stream KV_runners" in warning.getMessage()
    assert "'opstream provision --update'" in warning.getMessage()
    await stage.request("op-3")
    assert await is_blocked(api, "op-3", "Runner") == {"reason": "Runner"}


async def test_records_of_two_runners(link: Connection, stage: RunnerStage) -> None:
    """Each has a record of each of its actions, with its slots and how many are free; a stop removes its own."""
    records = RunnerRecords(link)
    await records.start()
    gate = HandlerGate()

    async def runners(count: int) -> Any:
        found = (await records.of(KIND)).runners
        return found if len(found) == count else None

    async with stage.runner([gated(gate)], concurrency=3):
        async with stage.runner([gated(gate)], concurrency=2):
            both = await eventually(lambda: runners(2))
            assert sorted((one.runner, one.version, one.slots, one.free) for one in both) == [
                ("runner-1", 1, 3, 3),
                ("runner-2", 1, 2, 2),
            ]
            assert {one.pid for one in both} == {os.getpid()}
        (left,) = await eventually(lambda: runners(1))
        assert left.runner == "runner-1"
        assert set(await records.all()) == {KIND}
    assert (await records.of(KIND)).runners == ()
    await records.stop()


async def test_a_start_time(api: Api, stage: RunnerStage) -> None:
    """The answer to the submit and the status say until when, whether or not there is a runner."""
    async with stage.runner([gated(HandlerGate())]):
        pass
    answer = await api.submit(body={}, headers={"Operation-Id": "op-1", "Operation-Start-After": "3600"})
    body = answer.json()
    assert body["blockedBy"] == {"reason": "StartTime", "until": body["startAt"]}
    assert (await blocked_by(api, "op-1"), body["waitingFor"]) == (body["blockedBy"], "StartTime")
