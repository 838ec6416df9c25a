"""Reading a stream in order: everything once, whatever happens to the consumer, the connection or the broker."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamConfig

from opstream_journal import Connection, JournalUnavailable, NotProvisioned
from opstream_journal.errors import StreamReplaced
from opstream_journal.jetstream.scans import ordered_consumer as feed
from opstream_journal.jetstream.scans import stream_scan as scanning
from opstream_journal.jetstream.scans.ordered_consumer import OrderedConsumer
from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_schemas import subjects
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

STREAM = "NUMBERS"
COUNT = 2_501
"""More than the broker is asked for at once."""


@pytest.fixture
async def numbers(link: Connection) -> Connection:
    """A stream with the numbers from 1, two on each third subject."""
    await link.nc.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["numbers.>"]))
    await add(link, 1, COUNT)
    return link


async def add(link: Connection, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await link.nc.publish(f"numbers.{'three' if number % 3 == 0 else 'other'}", str(number).encode())

    async def is_stored() -> bool:
        return (await stream_bounds(link, STREAM)).last >= last

    await eventually(is_stored, within=30)


async def collect(batches: AsyncGenerator[list[ScannedMessage], None]) -> list[int]:
    return [int(one.data) async for batch in batches for one in batch]


async def test_everything_comes_once_in_order(numbers: Connection) -> None:
    """A scan gives each message of the stream once, in order, with its sequence, subject and time."""
    found = [one async for batch in scan_stream(numbers, STREAM) for one in batch]
    expected = [(n, "numbers.three" if n % 3 == 0 else "numbers.other", b"%d" % n) for n in range(1, COUNT + 1)]
    assert expected == [(one.sequence, one.subject, one.data) for one in found]
    assert sorted(one.stored_at for one in found) == [one.stored_at for one in found]
    stored = await numbers.nc.jetstream().get_msg(STREAM, 7)
    assert stored.time is not None
    assert abs((found[6].stored_at - stored.time).total_seconds()) < 1e-3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"first": 2_490}, range(2_490, COUNT + 1)),
        ({"last": 10}, range(1, 11)),
        ({"first": 7, "last": 7}, range(7, 8)),
        ({"first": COUNT + 1}, range(0)),
        ({"first": 9, "last": 8}, range(0)),
        ({"filters": ["numbers.three"], "last": 10}, range(3, 10, 3)),
        ({"filters": ["numbers.three"], "last": 9}, range(3, 10, 3)),
        ({"filters": ["numbers.three", "numbers.other"], "first": 2_499}, range(2_499, COUNT + 1)),
        ({"filters": ["numbers.three"], "first": COUNT - 1}, range(0)),
        ({"filters": ["numbers.none"]}, range(0)),
    ],
    ids=str,
)
async def test_a_part(numbers: Connection, given: dict[str, Any], expected: range) -> None:
    """First, last and filters choose a part of the stream, and the scan ends where nothing is left of it."""
    assert list(expected) == await collect(scan_stream(numbers, STREAM, **given))


async def test_since(numbers: Connection) -> None:
    """Since begins with what was stored then, unless first is later still."""
    await add(numbers, COUNT + 1, COUNT + 5)
    stored = [one async for batch in scan_stream(numbers, STREAM, first=COUNT) for one in batch]
    since = stored[2].stored_at
    found = await collect(scan_stream(numbers, STREAM, since=since))
    assert set(found) >= set(range(COUNT + 2, COUNT + 6))
    assert min(found) > 0
    assert [COUNT + 5] == await collect(scan_stream(numbers, STREAM, since=since, first=COUNT + 5))
    assert [] == await collect(scan_stream(numbers, STREAM, since=stored[-1].stored_at + timedelta(hours=1)))


async def test_holes(numbers: Connection) -> None:
    """Sequences that are not there any more are passed over, at both ends and in between."""
    js = numbers.nc.jetstream()
    for number in (1, 2, 2_000, COUNT - 1, COUNT):
        await js.delete_msg(STREAM, number)
    assert [*range(3, 2_000), *range(2_001, COUNT - 1)] == await collect(scan_stream(numbers, STREAM))


async def test_an_empty_stream(link: Connection) -> None:
    """An empty stream is at its end at once."""
    await link.nc.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["numbers.>"]))
    where = await stream_bounds(link, STREAM)
    assert where.last < where.first
    assert [] == await collect(scan_stream(link, STREAM))


async def test_no_stream(link: Connection) -> None:
    """A stream that does not exist is said to be missing."""
    with pytest.raises(NotProvisioned, match="no stream NOWHERE"):
        await collect(scan_stream(link, "NOWHERE"))
    with pytest.raises(NotProvisioned, match="no stream NOWHERE"):
        await stream_bounds(link, "NOWHERE")


async def test_following(numbers: Connection) -> None:
    """One that follows gives what is there, then what comes, without end."""
    found: list[int] = []
    async with asyncio.timeout(30):
        async for batch in scan_stream(numbers, STREAM, first=COUNT - 1, is_following=True):
            found += [int(one.data) for one in batch]
            if len(found) == 2:
                await add(numbers, COUNT + 1, COUNT + 3)
            if len(found) == 5:
                break
    assert list(range(COUNT - 1, COUNT + 4)) == found


async def test_consumers_that_are_deleted(numbers: Connection) -> None:
    """Consumers that are deleted under the scan cost nothing: it goes on behind the last message."""
    found: list[int] = []
    deleted = 0
    async with asyncio.timeout(30):
        async for batch in scan_stream(numbers, STREAM):
            found += [int(one.data) for one in batch]
            for name in await consumers(numbers):
                deleted += await numbers.nc.jetstream().delete_consumer(STREAM, name)
    assert list(range(1, COUNT + 1)) == found
    assert deleted > 1


async def test_a_broker_that_is_killed(broker: Broker, numbers: Connection) -> None:
    """A broker that is killed and comes back costs nothing, while messages are delivered and while none are left."""
    found: list[int] = []
    kills = {random.randrange(1, COUNT), COUNT}
    async with asyncio.timeout(60):
        async for batch in scan_stream(numbers, STREAM, is_following=True):
            found += [int(one.data) for one in batch]
            if due := {kill for kill in kills if len(found) >= kill}:
                kills -= due
                broker.kill()
                broker.start()
                await eventually(lambda: answers(numbers), within=20)
                if not kills:
                    await add(numbers, COUNT + 1, COUNT + 1)
            if found[-1] == COUNT + 1:
                break
    assert list(range(1, COUNT + 2)) == found


async def test_a_broker_that_stays_away(broker: Broker, numbers: Connection) -> None:
    """A broker that does not come back within the patience ends the scan with an error."""
    batches = scan_stream(numbers, STREAM, patience=0.5)
    await anext(batches)
    broker.kill()
    with pytest.raises(JournalUnavailable):
        await collect(batches)
    broker.start()
    await eventually(lambda: answers(numbers), within=20)


@pytest.mark.parametrize("is_following", [False, True])
async def test_a_stream_that_was_made_anew(numbers: Connection, is_following: bool) -> None:
    """It is reported. The messages of the new one are neither read as the rest nor waited for."""
    batches = scan_stream(numbers, STREAM, is_following=is_following)
    await anext(batches)
    await numbers.nc.jetstream().delete_stream(STREAM)
    await numbers.nc.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["numbers.>"]))

    with pytest.raises(StreamReplaced, match="created again"):
        await collect(batches)


async def test_a_stream_that_was_set_back(
    broker: Broker, numbers: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that is older than what was read ends the scan, too, after a while in which a leader may catch up."""
    monkeypatch.setattr(scanning, "_LEADER_LAG", 0.1)
    broker.stop()
    shutil.copytree(broker._folder, tmp_path / "backup")
    broker.start()
    await eventually(lambda: answers(numbers), within=20)
    await add(numbers, COUNT + 1, COUNT + 3)
    batches = scan_stream(numbers, STREAM, first=COUNT, is_following=True)
    assert [one.sequence for one in await anext(batches)][-1] == COUNT + 3
    broker.stop()
    shutil.rmtree(broker._folder)
    shutil.copytree(tmp_path / "backup", broker._folder)
    broker.start()

    with pytest.raises(StreamReplaced, match=f"ends at sequence {COUNT}, but {COUNT + 3} was read"):
        await collect(batches)


async def test_nothing_piles_up(numbers: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader has at most two pulls of messages ahead of it."""
    monkeypatch.setattr(feed, "_FIRST_PULL", 10)
    monkeypatch.setattr(feed, "_MAX_PULL", 10)
    largest = 0
    async for batch in scan_stream(numbers, STREAM, last=1_000):
        await consumers(numbers)  # whatever the broker has sent by now has come
        largest = max(largest, len(batch))
    assert largest <= 20


async def test_it_leaves_nothing(numbers: Connection) -> None:
    """However a scan ends, its consumer is deleted."""
    await collect(scan_stream(numbers, STREAM))
    part = scan_stream(numbers, STREAM)
    await anext(part)
    await part.aclose()

    async def is_clean() -> bool:
        return not await consumers(numbers)

    await eventually(is_clean)


async def answers(link: Connection) -> bool:
    try:
        await stream_bounds(link, STREAM)
    except JournalUnavailable:
        return False
    return True


async def consumers(link: Connection) -> list[str]:
    answer = await link.nc.request(f"$JS.API.CONSUMER.NAMES.{STREAM}", b"", timeout=5)
    return json.loads(answer.data)["consumers"] or []


async def test_a_consumer_that_falls_silent_is_lost(broker: Broker, link: Connection) -> None:
    """The server of a consumer may end without a word. The heartbeat decides how long that goes unnoticed."""
    config = {"ack_policy": "none", "max_deliver": 1, "mem_storage": True, "num_replicas": 1}
    async with Proxy(broker.port) as proxy, linked(proxy.url) as far:
        consumer = await OrderedConsumer.open(far, subjects.OPERATIONS_STREAM, config, heartbeat=0.2)
        proxy.mute()
        began = time.monotonic()
        assert await consumer.next_batch(is_waiting=True) == []
        assert consumer.is_lost
        assert 1.0 < time.monotonic() - began < 4.0
        proxy.unmute()
        await consumer.close()
