"""Brokers that are too old are refused wherever something connects, and no consumer that exists is created again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from nats.aio.msg import Msg

from opstream.events import EventsBroker
from opstream_journal import Connection, Journal, connect
from opstream_journal.errors import BrokerTooOld
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import check_provisioned, ensure_runner_consumer, provision
from opstream_journal.provisioning.subscriber_consumers import SubscriberConsumer
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.journal.journals import begin
from tests.support.runner.stage import HandlerGate, gated
from tests.support.system.processes import Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OLD = "2.14.9"


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    async with Proxy(broker.port) as proxy:
        yield proxy


async def test_the_first_connect(proxy: Proxy) -> None:
    """Nothing connects to a broker that is too old; the reason names both versions and the next step."""
    proxy.version = OLD
    with pytest.raises(BrokerTooOld, match=f"{proxy.url} is nats-server 2.14.9, and opstream needs 2.15.0 or later"):
        await connect([proxy.url], "test", connect_timeout=5)


async def test_a_subscriber(proxy: Proxy) -> None:
    """A subscriber of events is refused, too."""
    proxy.version = OLD
    with pytest.raises(BrokerTooOld, match="Update every server of the cluster first"):
        await EventsBroker(proxy.url, connect_timeout=5).start()


async def test_a_reconnect(proxy: Proxy) -> None:
    """A connection that comes back to an older server of a mixed cluster is given up."""
    reasons: list[str] = []
    link = await connect([proxy.url], "test", connect_timeout=5, on_lost=reasons.append)
    proxy.version = OLD
    proxy.cut()
    await eventually(lambda: reasons)
    assert "is nats-server 2.14.9, and opstream needs 2.15.0 or later" in reasons[0]
    await link.close()


async def test_an_old_leader(link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service does not start if the leader of a stream, which answers for it, is too old."""
    monkeypatch.setattr(admin, "server_version", lambda _config: OLD)
    with pytest.raises(BrokerTooOld, match=r"the leader of TIMERS is nats-server 2\.14\.9"):
        await check_provisioned(link)


async def test_the_leader_tells_its_version(link: Connection, broker: Broker) -> None:
    """The version in a stream's configuration is that of the server which answers."""
    config = await admin.stream_config(link, subjects.OPERATIONS_STREAM)
    assert config is not None
    varz = await asyncio.to_thread(broker.monitor, "/varz")
    assert admin.server_version(config) == varz["version"]


@pytest.mark.parametrize(
    "command",
    [
        ("api", "--port", "0"),
        ("runner", "--actions", "tests.support.runner.stubborn_actions"),
        ("projector",),
        ("webhooks",),
        ("verify",),
        ("provision",),
    ],
    ids=lambda command: command[0],
)
async def test_services_and_commands(proxy: Proxy, command: tuple[str, ...]) -> None:
    """Each service and command ends with status 1 and the reason in one line."""
    proxy.version = OLD
    with Process(*command, "--nats", proxy.url) as process:
        assert await asyncio.to_thread(process.wait, 30) == 1
        assert "opstream: error: the broker at nats://127.0.0.1" in process.output
        assert "opstream needs 2.15.0 or later" in process.output
        assert "Traceback" not in process.output


@pytest.fixture
async def creations(link: Connection) -> Callable[[], list[str]]:
    """The consumers whose creation was asked for since the start of the test."""
    seen: list[str] = []

    async def note(message: Msg) -> None:
        seen.append(message.subject.rpartition(".")[2])

    await link.nc.subscribe("$JS.API.CONSUMER.CREATE.OPERATIONS.>", cb=note)
    await link.nc.flush()
    return lambda: seen


async def test_no_consumer_is_created_again(
    link: Connection, journal: Journal, creations: Callable[[], list[str]]
) -> None:
    """What exists is compared only: by provision, runners, and subscribers whose consumer another process has made."""
    spec = gated(HandlerGate()).spec
    await begin(journal, "op-1")
    mailer = SubscriberConsumer(link, "mailer", ["operations.*.*.*.failed"], ack_wait=5, max_pending=9)
    for _ in range(3):
        await provision(link, Sizing())
        await check_provisioned(link)
        await ensure_runner_consumer(link, spec)
        await mailer.ensure("all")
        await mailer.recreate()
    await link.nc.flush()
    assert sorted(creations()) == sorted(["mailer", subjects.runner_consumer(spec.kind)])
