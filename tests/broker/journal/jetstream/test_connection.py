"""The care of one connection: bounded waits, honest states, and an end where nothing would ever work again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import uvloop

from opstream_journal import (
    BrokerUnreachable,
    Connection,
    JournalUnavailable,
    NotProvisioned,
    connect,
    retry_until_ready,
)
from opstream_journal.jetstream import connection as link_module
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.provisioning.provision import check_provisioned
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.wire import client_patches
from opstream_schemas import subjects
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker, free_port
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


class Lost:
    """Takes the reason for which a connection was given up."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The URL of something that takes connections and never says anything."""

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


async def refused(servers: list[str], connect_timeout: float) -> tuple[str, float]:
    """What connecting said, and how long that took."""
    lost = Lost()
    began = time.monotonic()
    with pytest.raises(BrokerUnreachable) as unreachable:
        await connect(servers, "test", connect_timeout=connect_timeout, on_lost=lost)
    assert lost.reasons == []
    return str(unreachable.value), time.monotonic() - began


async def test_credentials_are_not_told() -> None:
    """An error about a broker names it without the user and password of its URL."""
    for server in (f"nats://ada:secret@127.0.0.1:{free_port()}", "nats://ada:secret@127.0.0.1:no-port"):
        with pytest.raises(BrokerUnreachable) as unreachable:
            await connect([server], "test", connect_timeout=0.2)
        assert "nats://…@127.0.0.1:" in str(unreachable.value)
        assert "secret" not in str(unreachable.value)


async def test_nobody_listens() -> None:
    """Without a broker, connecting ends after its timeout and names where it looked and what to do."""
    url = f"nats://127.0.0.1:{free_port()}"
    message, took = await refused([url], 0.5)
    assert message == (f"no NATS broker answered at {url} within 0.5 s: start one ('opstream broker') or set --nats")
    assert took < 0.5 + 0.3


async def test_somebody_listens_and_says_nothing(silent: str) -> None:
    """A port that takes the connection and stays silent does not prolong the timeout."""
    _, took = await refused([silent], 0.5)
    assert took < 0.5 + 0.3


@pytest.mark.parametrize("servers", [[], ["nats://127.0.0.1:notaport"], ["nats://"]])
async def test_addresses_that_are_none(servers: list[str]) -> None:
    """An address that can't be one is refused at once."""
    _, took = await refused(servers, 5)
    assert took < 0.3


async def test_wrong_credentials() -> None:
    """The error for a broker that refuses the client differs from the one for a broker that is not there."""
    with Broker(extra='authorization { user: "a", password: "b" }') as broker:
        message, _ = await refused([broker.url], 0.5)
    assert "authorization violation" in message.lower()


async def test_a_broker_that_comes_while_we_wait() -> None:
    """Connecting waits for a broker that is still starting."""
    broker = Broker()
    connecting = asyncio.create_task(connect([broker.url], "test", connect_timeout=10, on_lost=Lost()))
    await asyncio.wait([connecting], timeout=0.3)
    with broker:
        link = await connecting
        assert link.is_connected
        await link.close()


async def test_connecting_can_be_canceled() -> None:
    """A canceled connect ends at once and leaves nothing behind that goes on trying."""
    before = asyncio.all_tasks()
    connecting = asyncio.create_task(connect([f"nats://127.0.0.1:{free_port()}"], "test", connect_timeout=60))
    await asyncio.wait([connecting], timeout=0.3)
    connecting.cancel()
    await asyncio.wait([connecting], timeout=1)
    assert connecting.cancelled()
    assert asyncio.all_tasks() == before


async def test_it_knows_whether_it_is_up(broker: Broker, link: Connection) -> None:
    """A connection is down while its broker is, waits for it within a time limit, and calls its callbacks."""
    told: list[str] = []
    link.on_disconnect(lambda: told.append("down"))
    link.on_reconnect(lambda: told.append("up"))
    broker.kill()
    await eventually(lambda: not link.is_connected)
    began = time.monotonic()
    assert not await link.wait_connected(0.2)
    assert time.monotonic() - began < 0.3
    waiting = asyncio.create_task(link.wait_connected(10))
    await asyncio.to_thread(broker.start)
    assert await waiting
    await eventually(lambda: told == ["down", "up"])


async def test_questions_end_with_the_connection(broker: Broker, link: Connection) -> None:
    """What was asked on a connection that broke fails at once, not after its timeout."""
    reader = BatchReader(link)
    await reader.start()
    broker.pause()
    questions = [
        asyncio.create_task(rpc.get_last(link, subjects.OPERATIONS_STREAM, "operations.a.>", timeout=30)),
        asyncio.create_task(reader.read(subjects.OPERATIONS_STREAM, {"multi_last": ["operations.a.>"]}, timeout=30)),
    ]
    await asyncio.wait(questions, timeout=0.1)
    broker.kill()
    answers = await asyncio.wait_for(asyncio.gather(*questions, return_exceptions=True), 2)
    assert [type(answer) for answer in answers] == [JournalUnavailable, JournalUnavailable]
    broker.start()


async def test_a_protocol_error_is_the_end(broker: Broker) -> None:
    """When the broker closes the connection for good (a message with headers over max_payload), `on_lost` is called."""
    lost = Lost()
    link = await connect([broker.url], "test", connect_timeout=5, on_lost=lost)
    await link.nc.publish("anything", b"x" * link.nc.max_payload, headers={"one": "too many"})
    await eventually(lambda: lost.reasons)
    assert lost.reasons == ["the broker connection was closed for good"]
    await link.close()


async def test_closing_is_no_loss(broker: Broker) -> None:
    """Closing a connection does not call `on_lost`, and sends what was published before."""
    async with linked(broker.url) as other:
        heard = await other.nc.subscribe("farewell")
        await other.nc.flush()
        lost = Lost()
        link = await connect([broker.url], "test", connect_timeout=5, on_lost=lost)
        await link.nc.publish("farewell", b"bye")
        await link.close()
        await link.close()
        assert (await heard.next_msg(timeout=2)).data == b"bye"
        assert lost.reasons == []


@pytest.mark.parametrize("trouble", ["kill", "pause"])
async def test_closing_without_a_broker(broker: Broker, trouble: str) -> None:
    """Closing ends soon when the broker is gone or hangs."""
    lost = Lost()
    link = await connect([broker.url], "test", connect_timeout=5, on_lost=lost)
    await link.nc.subscribe("something")
    getattr(broker, trouble)()
    began = time.monotonic()
    await link.close()
    assert time.monotonic() - began < 3
    assert lost.reasons == []


async def test_closing_while_a_cancellation_is_forgotten(broker: Broker) -> None:
    """Nothing goes on reconnecting after the close, although nats-py's wait forgets that it was canceled."""
    link = await connect([broker.url], "test", connect_timeout=5, on_lost=Lost())
    asked: list[str] = []

    async def forgetful() -> None:
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked.append("to stop")
        await asyncio.Event().wait()

    link.nc._select_next_server = forgetful  # type: ignore[method-assign]
    before = asyncio.all_tasks()
    broker.kill()
    await eventually(lambda: not link.is_connected)
    await asyncio.wait_for(link.close(), 5)
    assert len(asked) == 3
    assert asyncio.all_tasks() <= before


async def test_another_broker_is_tried_although_bytes_are_unsent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that takes nothing any more, with bytes still in it, is left for a new one."""
    monkeypatch.setattr(link_module, "_PING_INTERVAL", 0.2)
    monkeypatch.setattr(client_patches, "UNACKNOWLEDGED_LIMIT", 0.5)
    async with Proxy(broker.port) as proxy, linked(proxy.url) as link:
        proxy.freeze()
        for _ in range(20):
            await link.nc.publish("something", b"x" * 1_000_000)
        await eventually(lambda: link.nc.stats["reconnects"] == 1, within=10)
        await link.nc.flush(2)


async def test_a_start_outlasts_a_restart_of_the_broker(broker: Broker, link: Connection) -> None:
    """What a service does at its start is done once the broker is back."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    step = asyncio.create_task(retry_until_ready(link, lambda: check_provisioned(link), 10))
    await asyncio.wait([step], timeout=0.1)
    assert not step.done()
    broker.start()
    assert await step == Sizing().max_msg_size


async def test_a_start_has_its_time(broker: Broker, link: Connection) -> None:
    """A broker that stays away is reported once the time is over."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    with pytest.raises(BrokerUnreachable, match=r"within 0\.2 s"):
        await asyncio.wait_for(retry_until_ready(link, lambda: check_provisioned(link), 0.2), 2)
    broker.start()


async def test_a_start_has_its_time_also_in_the_middle_of_a_call(broker: Broker) -> None:
    """A broker that answers nothing takes seconds for each of many calls; the start ends at its time nevertheless."""
    async with linked(broker.url) as link:
        broker.pause()
        loop = asyncio.get_running_loop()
        try:
            with pytest.raises(BrokerUnreachable, match=r"within 1 s: .*is it stopped or overloaded\?"):
                await retry_until_ready(link, lambda: check_provisioned(link), 1)
            assert loop.time() - link.created_at < 3  # each call has 5 s
        finally:
            broker.resume()


async def test_a_start_does_not_wait_for_an_operator(broker: Broker) -> None:
    """An error that does not pass is raised at once."""
    async with linked(broker.url) as link:
        with pytest.raises(NotProvisioned):
            await asyncio.wait_for(retry_until_ready(link, lambda: check_provisioned(link), 60), 2)


def test_closing_with_something_unsent(broker: Broker) -> None:
    """Closing raises nothing if there is something left to say to a broker that has gone, as in a service on uvloop."""
    lost = Lost()

    async def lose_and_close() -> None:
        link = await connect([broker.url], "test", connect_timeout=5, on_lost=lost)
        broker.kill()
        await eventually(lambda: not link.is_connected)
        await link.nc.subscribe("something")
        await link.close()
        assert link.nc.is_closed

    uvloop.run(lose_and_close())
    assert lost.reasons == []
