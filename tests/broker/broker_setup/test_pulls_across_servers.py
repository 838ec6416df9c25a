"""A pull at a server that does not lead the consumer, with a login that has an account of its own.

The leader can't see whether such a login still listens: the way back of a pull is known to the client's server only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from opstream_journal import Connection, PullConsumer
from opstream_journal.jetstream.pull_consumer import EXPIRES
from opstream_journal.jetstream.readiness import retry_until_ready
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.broker_access.permissions import API, ActionAccess
from opstream_schemas.names import Kind
from tests.support.broker.roles import RoleCluster
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

KIND: Final = Kind("book", "upload")
CONSUMER: Final = subjects.runner_consumer(KIND)
SPEC: Final = ActionSpec(
    resource="book", action="upload", summary="", action_version=1, input_schema={}, result_schema={}
)
PROVISION_TIMEOUT: Final = 60.0


class Scene:
    """Three servers, the operator's connection, and runners at servers that don't lead the consumer."""

    def __init__(self, servers: RoleCluster, operator: Connection) -> None:
        self.servers = servers
        self.operator = operator

    async def info(self) -> dict[str, Any]:
        subject = f"{API}.CONSUMER.INFO.{subjects.OPERATIONS_STREAM}.{CONSUMER}"
        found: dict[str, Any] = msgspec.json.decode((await self.operator.nc.request(subject, timeout=5)).data)
        return found

    async def runner(self, leader: str) -> Connection:
        far = [node.url for node in self.servers.cluster.nodes if node.name != leader]
        return await self.servers.connect_to(far[:1], "runner")

    async def submit(self, operation_id: str) -> None:
        await self.operator.nc.request(subjects.event_subject(operation_id, KIND, "requested"), b"{}", timeout=5)

    async def has_waiting(self, count: int) -> bool:
        return bool((await self.info()).get("num_waiting") == count)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with RoleCluster(tmp_path, [ActionAccess(KIND)]) as servers:
        operator = await servers.connect_to(servers.cluster.urls, "admin")
        await retry_until_ready(operator, lambda: provision(operator, Sizing(replicas=3), [SPEC]), PROVISION_TIMEOUT)
        yield Scene(servers, operator)
        await operator.close()


async def pulling(connection: Connection) -> PullConsumer:
    consumer = PullConsumer(connection, subjects.OPERATIONS_STREAM, CONSUMER, clock=time.monotonic)
    await consumer.start()
    consumer.add_demand(1)
    return consumer


@pytest.fixture
async def runners(scene: Scene) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two connections with the key of runners, to a server that does not lead the consumer."""
    leader = (await scene.info())["cluster"]["leader"]
    first, second = await scene.runner(leader), await scene.runner(leader)
    yield first, second
    await first.close()
    await second.close()


async def test_a_runner_that_stopped_takes_no_message(scene: Scene, runners: tuple[Connection, Connection]) -> None:
    """What comes after it stopped goes to the next runner, and not to a connection that has ended."""
    stopping = await pulling(runners[0])
    await eventually(lambda: scene.has_waiting(1), within=10)
    await stopping.stop()
    await runners[0].close()
    await scene.submit("after")
    successor = await pulling(runners[1])
    async with asyncio.timeout(5):
        message = await successor.next()
    assert message.deliveries == 1
    await message.ack()
    await successor.stop()


async def test_a_runner_that_stops_passes_on_what_still_comes(
    scene: Scene, runners: tuple[Connection, Connection]
) -> None:
    """The lease of a message that comes while it stops is not waited for."""
    stopping = await pulling(runners[0])
    await eventually(lambda: scene.has_waiting(1), within=10)
    stop = asyncio.create_task(stopping.stop())
    await scene.submit("meanwhile")
    await stop
    assert (await scene.info())["delivered"]["consumer_seq"] >= 1, "it came too late"
    successor = await pulling(runners[1])
    async with asyncio.timeout(5):
        message = await successor.next()
    assert message.subject.split(".")[1] == "meanwhile"
    await message.ack()
    await successor.stop()


async def test_the_pull_of_a_lost_connection_ends_soon(scene: Scene, runners: tuple[Connection, Connection]) -> None:
    """It is served until it expires, after 5 s: what it gets then waits for its lease."""
    lost = await pulling(runners[0])
    await eventually(lambda: scene.has_waiting(1), within=10)
    await runners[0].close()
    await eventually(lambda: scene.has_waiting(0), within=EXPIRES + 3)
    await lost.stop()
