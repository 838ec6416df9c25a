"""Bytes that no text has end no connection."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from opstream_journal import Connection
from opstream_journal.wire.received_message import ReceivedMessage
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def test_subjects_and_headers_that_are_no_text(broker: Broker, link: Connection) -> None:
    """A subject, a reply and headers that are no text are read by receivers of ours and by callbacks of nats-py."""
    ours: list[ReceivedMessage] = []
    theirs: list[Msg] = []

    async def keep(message: Msg) -> None:
        theirs.append(message)

    await link.subscribe("odd.>", ours.append)
    await link.nc.subscribe("odd.>", cb=keep)
    await link.nc.flush()
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    await reader.readline()
    writer.write(b'CONNECT {"headers":true}\r\nPUB odd.\xff \xfe.a 2\r\nhi\r\nHPUB odd.b 4 6\r\n\xff\xff\xff\xffho\r\n')
    link.sender.send("odd.c", b"end", headers={"A": "b"})
    await eventually(lambda: len(ours) == len(theirs) == 3)
    writer.close()
    for received in (ours, theirs):
        found = {(one.subject, one.reply, one.data, (one.headers or {}).get("A")) for one in received}
        assert found == {
            ("odd.\ufffd", "\ufffd.a", b"hi", None),
            ("odd.b", "", b"ho", None),
            ("odd.c", "", b"end", "b"),
        }
