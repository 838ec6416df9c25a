"""The projector when the broker or the projector dies, in the middle of a batch or before its acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from opstream_journal import BrokerUnreachable, Connection, Journal, NotProvisioned, SnapshotStore
from opstream_projector.main import run
from opstream_projector.settings import Settings
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker, free_port
from tests.support.journal.journals import begin, extend, linked, opened
from tests.support.projector.projection import (
    LIFE,
    assert_is_fold,
    live,
    projector,
    quick_consumer,
    reaches,
    running,
    settled,
    view_writes,
)
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


class DeafView(SnapshotStore):
    """A view whose writes never return: the projector is stuck between a batch and its acknowledgement."""

    def __init__(self, link: Connection) -> None:
        super().__init__(link)
        self.is_reached = asyncio.Event()

    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None:
        self.is_reached.set()
        await asyncio.Event().wait()
        return None


@pytest.mark.parametrize("outage", ["kill", "stop"])
async def test_the_broker_restarts_in_the_middle(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, outage: str
) -> None:
    """No event is lost, and the projector continues by itself."""
    names = [f"op-{number}" for number in range(30)]
    consumer = await quick_consumer(link, "quick", ack_wait=2)
    todo = iter(names)

    async def client() -> None:
        for name in todo:
            await live(journal, name, *LIFE)

    async with running(projector(link, journal, consumer=consumer, linger=0.005)):
        clients = asyncio.gather(*(client() for _ in range(8)))
        await eventually(lambda: reaches(view, names[4], 1))
        getattr(broker, outage)()
        await eventually(lambda: not link.is_connected)
        broker.start()
        await clients
        await settled(link, consumer)

    await assert_is_fold(view, journal, names)


async def test_the_broker_hangs_for_a_while(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """Writes without a response are retried from memory, without waiting for a redelivery."""
    replica = projector(link, journal, linger=0.5)  # nothing is written before the broker hangs
    async with running(replica):
        operation = await begin(journal, "op-1")
        await settled(link)
        operation = await extend(journal, operation, *LIFE[:2])
        broker.pause()
        await eventually(lambda: not replica.is_ready)
        broker.resume()
        await eventually(lambda: reaches(view, "op-1", operation.position))
        await eventually(lambda: replica.is_ready)

    await assert_is_fold(view, journal, ["op-1"])


async def test_killed_between_batch_and_acknowledgement(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """The messages that it held are redelivered to another projector; nothing is missing."""
    names = [f"op-{number}" for number in range(10)]
    consumer = await quick_consumer(link, "quick")
    for name in names:
        await live(journal, name, *LIFE)
    async with linked(broker.url) as doomed:
        deaf = DeafView(doomed)
        task = asyncio.create_task(projector(doomed, await opened(doomed), deaf, consumer=consumer).run())
        await deaf.is_reached.wait()
        # Without a connection it can't release messages, as if it had been killed.
        doomed.expect_close()
        await doomed.nc.close()
        task.cancel()
        await asyncio.wait([task])
    assert await view_writes(link) == 0

    async with running(projector(link, journal, consumer=consumer)):
        await settled(link, consumer)

    await assert_is_fold(view, journal, names)


async def test_held_messages_are_released_at_the_end(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """The next projector gets them at once, not after the ack_wait of 30 s."""
    names = [f"op-{number}" for number in range(10)]
    for name in names:
        await live(journal, name, *LIFE)
    async with linked(broker.url) as own:
        deaf = DeafView(own)
        async with running(projector(own, await opened(own), deaf)):
            await deaf.is_reached.wait()

    async with running(projector(link, journal)):
        await settled(link, within=8)

    await assert_is_fold(view, journal, names)


async def test_the_current_batch_is_written_before_the_end(
    link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """A cancellation while a batch is written does not discard the batch."""

    class SlowView(SnapshotStore):
        is_reached = asyncio.Event()
        may_go_on = asyncio.Event()

        async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None:
            self.is_reached.set()
            await self.may_go_on.wait()
            return await super().put(operation, revision, ttl=ttl)

    await live(journal, "op-1", started())
    slow = SlowView(link)
    task = asyncio.create_task(projector(link, journal, slow).run())
    await slow.is_reached.wait()
    task.cancel()
    slow.may_go_on.set()
    await asyncio.wait([task])

    assert task.cancelled()
    await assert_is_fold(view, journal, ["op-1"])
    await settled(link, within=2)


@contextlib.asynccontextmanager
async def process(url: str, health_port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the projector as a process of its own."""
    code = (
        "from opstream_projector.main import run; from opstream_projector.settings import Settings; "
        f"run(Settings(servers=({url!r},), health_port={health_port}))"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_as_a_process(broker: Broker, link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """It reports its health, projects, and on SIGTERM releases what it holds and ends with status 0."""
    port = free_port()
    async with process(broker.url, port) as child, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/readyz")).status_code == 200
            return False

        await eventually(is_ready, within=15, poll=0.05)
        await live(journal, "op-1", *LIFE)
        await settled(link)
        os.kill(child.pid, signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 10) == 0

    await assert_is_fold(view, journal, ["op-1"])


async def test_stopped_while_it_waits_for_a_broker() -> None:
    """It is alive but not ready, and ends at once with status 0."""
    port = free_port()
    async with (
        process(f"nats://127.0.0.1:{free_port()}", port) as child,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        async def is_alive() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/healthz")).status_code == 200
            return False

        await eventually(is_alive, within=15, poll=0.05)
        assert (await client.get("/readyz")).status_code == 503
        os.kill(child.pid, signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 5) == 0


def test_without_a_broker_it_says_so() -> None:
    """It ends after the connect timeout, with an error for the command to print."""
    with pytest.raises(BrokerUnreachable, match="opstream broker"):
        run(Settings(servers=(f"nats://127.0.0.1:{free_port()}",), connect_timeout=0.3))


def test_on_an_unprovisioned_broker_it_says_what_to_run(broker: Broker) -> None:
    """It ends at once, with the command to run."""
    with pytest.raises(NotProvisioned, match="opstream provision"):
        run(Settings(servers=(broker.url,)))
