"""Publishing without nats-py: in order, nothing for later, and refused as nats-py refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import nats.errors
import pytest
import uvloop
from nats.aio.msg import Msg

from opstream_journal import Connection
from opstream_journal.wire.sender import Outgoing, Sender
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
async def received(broker: Broker) -> AsyncIterator[list[Msg]]:
    """What another connection gets on `sent.>`."""
    found: list[Msg] = []

    async def keep(message: Msg) -> None:
        found.append(message)

    async with linked(broker.url) as other:
        await other.nc.subscribe("sent.>", cb=keep)
        await other.nc.flush()
        yield found


async def test_messages_arrive_as_they_were_sent(link: Connection, received: list[Msg]) -> None:
    """Single messages, several in one go and those of nats-py arrive in their order, with reply and headers."""
    link.sender.send("sent.1", b"one", reply="answers.1", headers={"A": "b"})
    link.sender.send_many([Outgoing("sent.2", b"two"), Outgoing("sent.3", b"", headers={"C": "d\r\ne"})])
    await link.nc.publish("sent.4", b"four")
    link.sender.send("sent.5")
    await eventually(lambda: len(received) == 5)
    assert [(one.subject, one.data, one.reply, one.headers) for one in received] == [
        ("sent.1", b"one", "answers.1", {"A": "b"}),
        ("sent.2", b"two", "", None),
        ("sent.3", b"", "", {"C": "d  e"}),
        ("sent.4", b"four", "", None),
        ("sent.5", b"", "", None),
    ]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_broker_that_reads_slowly_gets_all_in_order(broker: Broker, run: Callable[..., None]) -> None:
    """What a broker does not read waits in nats-py's list, which is counted, and is sent in order afterwards."""

    async def send_to_slow_broker() -> None:
        async with linked(broker.url) as link, linked(broker.url) as other:
            received: list[str] = []

            async def keep(message: Msg) -> None:
                received.append(message.subject)

            await other.nc.subscribe("sent.>", cb=keep)
            await other.nc.flush()
            broker.pause()
            for number in range(200):
                link.sender.send(f"sent.{number}", b"x" * 100_000)
                await asyncio.sleep(0)
            waiting = link.nc.pending_data_size
            broker.resume()
            link.sender.send("sent.200")
            await eventually(lambda: len(received) == 201)
            assert waiting > 1_000_000
            assert received == [f"sent.{number}" for number in range(201)]

    run(send_to_slow_broker())


async def test_nothing_is_kept_for_a_broker_that_is_away(broker: Broker, link: Connection) -> None:
    """A connection that is ending, or down, refuses each message, and keeps none for the next connect."""
    late = Outgoing("sent.1", b"late")
    link.sender.send_many([late])
    link.nc._transport._io_writer.transport.abort()
    with pytest.raises(nats.errors.OutboundBufferLimitError):  # nats-py still thinks that it is connected
        link.sender.send_many([late])
    broker.kill()
    await eventually(lambda: not link.is_connected)
    assert link.nc._pending == []
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        link.sender.send_many([late])
    assert link.nc._pending == []


@pytest.mark.parametrize(
    ("send", "error"),
    [
        (lambda sender: sender.send(""), nats.errors.BadSubjectError),
        (lambda sender: sender.send("a b"), nats.errors.BadSubjectError),
        (lambda sender: sender.send("a", reply="b\r\nPUB c 0"), nats.errors.BadSubjectError),
        (lambda sender: sender.send("a", headers={"b\r\n": "c", "d e": "f"}), nats.errors.BadHeaderError),
        (lambda sender: sender.send("a", b"x" * (1024 * 1024 + 1)), nats.errors.MaxPayloadError),
    ],
)
async def test_what_nats_refuses(link: Connection, send: Callable[[Sender], None], error: type[Exception]) -> None:
    """A message that would break the protocol, or the broker's limit, is refused before anything is sent."""
    sent = link.nc.stats["out_msgs"]
    with pytest.raises(error):
        send(link.sender)
    good = Outgoing("sent.1", b"good")
    with pytest.raises(nats.errors.BadSubjectError):
        link.sender.send_many([good, Outgoing("sent 2", b"bad")])
    assert link.nc.stats["out_msgs"] == sent


async def test_a_closed_connection(link: Connection) -> None:
    """After its end a connection refuses all."""
    await link.close()
    with pytest.raises(nats.errors.ConnectionClosedError):
        link.sender.send("sent.1")
