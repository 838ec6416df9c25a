"""A journal that fills up: submits are refused early enough that accepted operations still end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import httpx
import pytest
from click.testing import CliRunner

from opstream.cli.app import main
from opstream_api.operations.journal_capacity import FULL_SHARE, JournalCapacity
from opstream_journal import NEW_OPERATION, Connection, Journal, JournalFull, JournalUnavailable, connect
from opstream_journal.metrics.exposition import render
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_runner import Action, ActionContext, RetryAfter, action
from opstream_schemas import subjects
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import KIND, first, opened
from tests.support.projector.projection import projector
from tests.support.projector.projection import running as projecting
from tests.support.runner.stage import ACKS, HandlerGate, Input, RunnerStage, gated
from tests.support.schemas.histories import request
from tests.support.system.invariants import Promise, breaches, gather
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ROOM: Final = 1_000_000
"""Bytes of the journal."""
ALMOST: Final = 0.8
"""Share of it that others have used before submits are refused."""
HELD: Final = [f"held-{number}" for number in range(8)]
"""Operations that are in the middle when the journal is nearly full."""
FILLER: Final = Kind("other", "filler")


@pytest.fixture
async def link(broker: Broker) -> AsyncIterator[Connection]:
    """A connection to a broker whose journal is small."""
    link = await connect([broker.url], "test", connect_timeout=10, on_lost=logging.getLogger(__name__).error)
    try:
        await provision(link, Sizing(max_bytes=ROOM))
        yield link
    finally:
        await link.close()


@pytest.fixture
async def journal(link: Connection) -> Journal:
    return await opened(link)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API measures the room, and runners retry, more often than in a journal of gigabytes."""
    monkeypatch.setattr("opstream_api.operations.journal_capacity._INTERVAL", 0.02)
    monkeypatch.setattr("opstream_runner.attempt.completion._JOURNAL_FULL_DELAY", 0.1)


def laborious(gate: HandlerGate) -> Action[..., Any]:
    """Operations of `HELD` wait at the gate and say all that there is to say before and after it; others are quick."""

    @action(str(KIND), lease=1, max_attempts=3, backoff=0.01)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        if ctx.operation_id not in HELD:
            return ctx.attempt
        if ctx.attempt == 1:
            await gate.wait(ctx)
        await ctx.progress(30.0 * ctx.attempt, f"attempt {ctx.attempt} " + "x" * 200)
        if ctx.attempt < 3:
            raise RetryAfter(0.01, f"attempt {ctx.attempt} failed")
        return {"attempt": ctx.attempt, "text": "x" * 500}

    return handler


async def submit(api: Api, operation_id: str) -> httpx.Response:
    """Submit an operation."""
    return await api.submit(body={}, headers={"Operation-Id": operation_id})


async def used(link: Connection) -> tuple[int, int]:
    """Return the bytes in use and the limit of the journal."""
    info = await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)
    return info.state.bytes, info.config.max_bytes or 0


async def share(link: Connection) -> float:
    """Return the share of the journal in use."""
    bytes_used, size = await used(link)
    return bytes_used / size


async def fill(api: Api, stage: RunnerStage) -> list[str]:
    """Let operations run and end until no more are accepted, and the service says so; those that were. Right after a
    refusal a new look may find room again: what has just ended needs none any more."""
    accepted: list[str] = []
    while True:
        operation_id = f"quick-{len(accepted)}"
        answer = await submit(api, operation_id)
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "JournalFull"
            assert answer.json()["error"]["operationId"] == operation_id
            assert int(answer.headers["Retry-After"]) > 0
            if not await has_room(api):
                return accepted
            continue
        assert answer.status_code == 202, answer.text
        accepted.append(operation_id)
        await stage.ended(operation_id)


async def store_other(link: Connection, journal: Journal, size: int) -> int:
    """Store a request of another action with `size` letters in it; return the bytes that the journal grew by."""
    before = (await used(link))[0]
    data = request(resource=FILLER.resource, action=FILLER.action, caller="x" * size)
    await journal.append(FILLER, first(str(uuid.uuid4()), data=data), NEW_OPERATION, budget=5)
    return (await used(link))[0] - before


async def store_others(link: Connection, journal: Journal, until: float = ALMOST) -> None:
    """Store requests of another action until the given share of the journal is used."""
    while await share(link) < until:
        await store_other(link, journal, 10_000)


async def use_up(link: Connection, journal: Journal) -> None:
    """Store requests of another action until no event fits any more; the last one uses the remaining bytes."""
    await store_others(link, journal, 0.98)
    least = await store_other(link, journal, 1)
    bytes_used, size = await used(link)
    await store_other(link, journal, size - bytes_used - least - 10)
    with pytest.raises(JournalFull):
        await store_other(link, journal, 0)


async def test_what_was_accepted_ends(broker: Broker, link: Connection, journal: Journal, stage: RunnerStage) -> None:
    """Submits are refused at about 85 %. The rest is enough for progress, retries and results, and for an operator to
    cancel and fail operations.
    """
    gate = HandlerGate()
    async with (
        projecting(projector(link, journal)),
        stage.runner([laborious(gate)], concurrency=16, dependencies=stage.dependencies(source="test/runner-1")),
        serving(broker.url) as api,
    ):
        for one in HELD:
            assert (await submit(api, one)).status_code == 202
        await gate.entered(len(HELD))
        await store_others(link, journal)
        quick = await fill(api, stage)
        assert FULL_SHARE - 0.03 <= await share(link) < FULL_SHARE + 0.03

        canceled, failed, *rest = HELD
        assert (await api.cancel(canceled)).status_code == 200
        arguments = ["fail", failed, "--nats", broker.url, "--reason", "no room"]
        assert (await asyncio.to_thread(CliRunner().invoke, main, arguments)).exit_code == 0
        assert (await stage.ended(canceled)).status is Status.CANCELED
        gate.open()
        for one in rest:
            operation = await stage.ended(one)
            assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 3)
        assert (await stage.state(failed)).status is Status.FAILED
        assert (await submit(api, "late")).status_code == 503
        await stage.settled()
        evidence = await gather(broker.url)
    evidence.promised = {one: Promise(str(KIND), {}, "42") for one in [*HELD, *quick]}
    assert breaches(evidence) == []
    assert await share(link) < 1
    assert await stage.events("late") == []


async def test_a_journal_of_open_operations(
    broker: Broker, link: Connection, journal: Journal, stage: RunnerStage, caplog: pytest.LogCaptureFixture
) -> None:
    """However many operations wait for a runner when submits are refused, each of them ends without waiting for room. A
    repeated submit is still accepted.
    """
    gate = HandlerGate()
    async with (
        projecting(projector(link, journal)),
        stage.runner([gated(gate)], concurrency=1, dependencies=stage.dependencies(source="test/runner-1")),
        serving(broker.url) as api,
    ):
        accepted: list[str] = []
        while (answer := await submit(api, f"op-{len(accepted)}")).status_code == 202:
            accepted.append(f"op-{len(accepted)}")
        assert answer.json()["error"]["code"] == "JournalFull"
        assert len(accepted) > 100
        assert await share(link) < 0.5
        again = await submit(api, accepted[-1])
        assert (again.status_code, again.json()["id"]) == (202, accepted[-1])
        assert (await api.submit(body={"n": 2}, headers={"Operation-Id": accepted[-1]})).status_code == 400
        gate.open()
        for one in accepted:
            assert (await stage.ended(one)).status is Status.SUCCEEDED
        await eventually(lambda: has_room(api))
    assert "waits for room" not in caplog.text
    assert "is requeued" not in caplog.text


async def has_room(api: Api) -> bool:
    """Return True if the service accepts a submit."""
    return (await api.client.get("/readyz")).status_code == 200


async def test_the_rest_is_used_up(
    broker: Broker, link: Connection, journal: Journal, stage: RunnerStage, caplog: pytest.LogCaptureFixture
) -> None:
    """If even the reserve is used up, outcomes wait. Once there is room they are stored, and no attempt ran twice."""
    caplog.set_level(logging.DEBUG, "opstream_runner")
    gate = HandlerGate()
    held = HELD[0]

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> int:
        if ctx.operation_id == held:
            await gate.wait(ctx)
        return ctx.attempt

    async with (
        projecting(projector(link, journal)),
        stage.runner([handler], dependencies=stage.dependencies(source="test/runner-1")),
        serving(broker.url) as api,
    ):
        assert (await submit(api, held)).status_code == 202
        await gate.entered(1)
        await use_up(link, journal)
        gate.open()
        await eventually(lambda: f"operation {held}: its outcome waits for room" in caplog.text)
        answer = await eventually(lambda: refused(api))
        assert answer.json()["error"]["code"] == "JournalFull"
        assert (await api.status(held)).json()["status"] == "Running"
        assert (await api.cancel(held)).json()["error"]["code"] == "JournalFull"
        assert not (await stage.state(held)).is_terminal

        arguments = ["provision", "--nats", broker.url, "--max-bytes", "2MiB", "--update"]
        made = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert made.exit_code == 0, made.output
        operation = await stage.ended(held)
        assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 1)
        await eventually(lambda: accepted(api))
        assert (await stage.ended("again")).status is Status.SUCCEEDED
        evidence = await gather(broker.url)
    evidence.promised = {one: Promise(str(KIND), {}, "42") for one in (held, "again")}
    assert breaches(evidence) == []


async def test_a_start_waits_for_room(link: Connection, journal: Journal, stage: RunnerStage) -> None:
    """An accepted operation that has not started starts once there is room."""
    gate = HandlerGate()
    gate.open()
    spy = await stage.spy(ACKS)
    await stage.request(HELD[0])
    await use_up(link, journal)
    async with stage.runner([gated(gate, lease=1)]):
        await eventually(lambda: was_delivered_again(stage))
        assert (await stage.names(HELD[0]), gate.attempts) == (["requested"], [])
        await provision(link, Sizing(max_bytes=2 * ROOM), is_update=True)
        operation = await stage.ended(HELD[0])
        await stage.settled()
    assert (operation.status, gate.attempts) == (Status.SUCCEEDED, [(HELD[0], 1)])
    assert spy.seen[-1][1] == b"+ACK"


async def was_delivered_again(stage: RunnerStage) -> bool:
    """Return True if the broker has delivered a message more than once."""
    return (await stage.consumer()).num_redelivered == 1


async def refused(api: Api) -> httpx.Response | None:
    """Return the response to a submit if it is refused."""
    answer = await submit(api, "again")
    return answer if answer.status_code == 503 else None


async def accepted(api: Api) -> bool:
    """Return True if a submit is accepted."""
    return (await submit(api, "again")).status_code == 202


async def test_what_is_not_known_is_not_shown(link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a measurement that fails the gauges show the last one, as in an election. Once that is too old they have no
    series; the next one that succeeds brings them back."""

    def shown() -> int:
        return len(
            re.findall(r"^opstream_journal_\w+ ", render(capacity.instruments, "text/plain").decode(), re.MULTILINE)
        )

    capacity = JournalCapacity(link)
    await capacity.ensure_ready()
    assert shown() == 3
    await admin.delete_stream(link, subjects.TIMERS_STREAM)
    with pytest.raises(JournalUnavailable):
        await capacity.ensure_ready()
    assert shown() == 3
    monkeypatch.setattr("opstream_api.operations.journal_capacity.KEPT", -1.0)
    with pytest.raises(JournalUnavailable):
        await capacity.ensure_ready()
    assert shown() == 0
    await provision(link, Sizing(max_bytes=ROOM))
    await capacity.ensure_ready()
    assert shown() == 3


async def test_a_lost_server(cluster: Cluster, cluster_link: Connection) -> None:
    """The copies of the journal are current; the one on a server that ended is behind."""

    async def copies() -> dict[str, float]:
        with contextlib.suppress(JournalUnavailable):  # the connection may have been to that server
            await capacity.ensure_ready()
        (family,) = (one for one in capacity.instruments if one.name == "opstream_journal_replicas")
        return {sample.labels[0]: sample.value for sample in family.samples()}

    async def are(**wanted: int) -> bool:
        return await copies() == wanted

    capacity = JournalCapacity(cluster_link)
    await eventually(partial(are, current=3, behind=0), within=20)
    (await cluster.followers(subjects.OPERATIONS_STREAM))[0].stop()
    await eventually(partial(are, current=2, behind=1), within=30, poll=0.1)
