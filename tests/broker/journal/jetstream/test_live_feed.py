"""A login that may make no consumer follows the journal by what the broker republishes, and misses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from opstream_journal import Connection
from opstream_journal.jetstream.scans import direct_reader, live_feed
from opstream_journal.jetstream.scans.live_feed import LiveFeed
from opstream_journal.jetstream.scans.stream_scan import scan_stream
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.names import Kind
from tests.support.broker.roles import RoleBroker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

KIND = Kind("book", "upload")
JOURNAL = subjects.OPERATIONS_STREAM


class Follower:
    """Follows the journal with the login of the API."""

    def __init__(self, connection: Connection) -> None:
        self.heard: list[tuple[int, str, bytes]] = []
        self._connection = connection

    async def run(self) -> None:
        """Follow until cancelled."""
        async for batch in scan_stream(self._connection, JOURNAL, is_following=True):
            self.heard += [(one.sequence, one.subject, one.data) for one in batch]

    async def has(self, count: int) -> None:
        """Wait until it has heard of that many messages."""
        await eventually(lambda: len(self.heard) >= count, within=20)


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[RoleBroker]:
    """A broker with a login for each role."""
    with RoleBroker(tmp_path, [ActionAccess(KIND)]) as broker:
        yield broker


@pytest.fixture
async def operator(roles: RoleBroker) -> AsyncIterator[tuple[Connection, Follower]]:
    """A connection of the operator to a journal, and one that follows it."""
    admin, api = await roles.connect("admin"), await roles.connect("api")
    await provision(admin, Sizing())
    follower = Follower(api)
    task = asyncio.create_task(follower.run())
    yield admin, follower
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for connection in (admin, api):
        await connection.close()


Parties = tuple[Connection, Follower]


async def store(admin: Connection, number: int, *, headers: dict[str, str] | None = None) -> None:
    """Store the message with that sequence."""
    subject = subjects.event_subject(f"op{number}", KIND, "requested")
    await admin.nc.request(subject, b"x" * number, timeout=5, headers=headers)


def stored(*numbers: int) -> list[tuple[int, str, bytes]]:
    """What a follower hears of them."""
    return [(one, subjects.event_subject(f"op{one}", KIND, "requested"), b"x" * one) for one in numbers]


async def test_it_hears_without_asking(operator: Parties) -> None:
    """All messages come in order, and next to none by a request for a page."""
    admin, follower = operator
    asked: list[str] = []

    async def note(message: ReceivedMessage) -> None:
        asked.append(message.subject)

    await store(admin, 1)
    await follower.has(1)
    await admin.nc.subscribe(f"$JS.API.DIRECT.GET.{JOURNAL}", cb=note)
    for number in range(2, 302):
        await store(admin, number)
    await follower.has(301)
    assert follower.heard == stored(*range(1, 302))
    assert len(asked) < 30


async def test_a_stream_that_republishes_nothing(operator: Parties) -> None:
    """As that of an earlier release: the messages come by pages. Later they come by themselves again."""
    admin, follower = operator
    js = admin.nc.jetstream()
    config = (await js.stream_info(JOURNAL)).config
    republish = config.republish
    await store(admin, 1)
    await follower.has(1)
    config.republish = None
    await js.update_stream(config)
    for number in range(2, 30):
        await store(admin, number)
    await follower.has(29)
    config.republish = republish
    await js.update_stream(config)
    for number in range(30, 60):
        await store(admin, number)
    await follower.has(59)
    assert follower.heard == stored(*range(1, 60))


async def test_messages_that_get_lost(operator: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not heard of is read, the last message too."""
    admin, follower = operator
    receive = LiveFeed.receive
    lost = {3, 4, 17, 30}

    def forget_some(feed: LiveFeed, message: ReceivedMessage) -> None:
        if int((message.headers or {})["Nats-Sequence"]) not in lost:
            receive(feed, message)

    monkeypatch.setattr(LiveFeed, "receive", forget_some)
    for number in range(1, 31):
        await store(admin, number)
    await follower.has(30)
    assert follower.heard == stored(*range(1, 31))


async def test_more_than_it_keeps(operator: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody takes what it hears it forgets, and the rest is read."""
    admin, follower = operator
    monkeypatch.setattr(live_feed, "_MAX_WAITING", 7)
    is_free, next_messages = asyncio.Event(), direct_reader.DirectReader._next_messages

    async def wait_first(reader: direct_reader.DirectReader, *, is_waiting: bool) -> object:
        await is_free.wait()
        return await next_messages(reader, is_waiting=is_waiting)

    await store(admin, 1)
    await follower.has(1)
    monkeypatch.setattr(direct_reader.DirectReader, "_next_messages", wait_first)
    for number in range(2, 60):
        await store(admin, number)
    is_free.set()
    await follower.has(59)
    assert follower.heard == stored(*range(1, 60))


async def test_a_broker_that_is_killed(operator: Parties, roles: RoleBroker) -> None:
    """What is stored after it is back comes, and nothing comes twice."""
    admin, follower = operator
    for number in (1, 2):
        await store(admin, number)
    await follower.has(2)
    is_back = asyncio.Event()
    admin.on_reconnect(is_back.set)
    roles.broker.kill()
    roles.broker.start()
    await asyncio.wait_for(is_back.wait(), 20)
    for number in range(3, 20):
        await store(admin, number)
    await follower.has(19)
    assert follower.heard == stored(*range(1, 20))


async def test_headers_that_lie(operator: Parties) -> None:
    """A message that brings the headers of a republished one has the sequence that the broker gave it."""
    admin, follower = operator
    await store(admin, 1)
    await follower.has(1)
    lies = {"Nats-Sequence": "900", "Nats-Time-Stamp": "2001-01-01T00:00:00Z", "Nats-Subject": "operations.x.y.z.w"}
    await store(admin, 2, headers=lies)
    await store(admin, 3)
    await follower.has(3)
    assert follower.heard == stored(1, 2, 3)


async def test_what_was_not_republished(operator: Parties) -> None:
    """A message without the broker's headers is no event, even from the operator."""
    admin, follower = operator
    await store(admin, 1)
    await follower.has(1)
    await admin.nc.publish(subjects.live_filter(JOURNAL).replace(">", "operations.op9.book.upload.requested"), b"x")
    await store(admin, 2)
    await follower.has(2)
    assert follower.heard == stored(1, 2)
