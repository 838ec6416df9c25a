"""Histories on a real broker without a runner: at once, followed live, by many readers, by slow ones."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx
import msgspec
import pytest

from opstream_api.http import responses
from opstream_api.operations import history
from opstream_api.operations.event_feed import PAGE_SIZE, EventFeed
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import EventData, Progressed, Succeeded, decode_event
from tests.support.api.event_stream import ShownEvent, following
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

SUCCEEDED = Succeeded(result=msgspec.Raw(b'{"n":1}'))


class Unknown(EventData, frozen=True, kw_only=True):
    """An event of a later version."""

    name: ClassVar[str] = "progressed"
    type: ClassVar[str] = "opstream.action.paused.v1"


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def running(api: Api, journal: Journal) -> OperationStory:
    """An operation that a runner has started."""
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await story.append(started())
    return story


async def stored(journal: Journal, story: OperationStory) -> list[bytes]:
    """Return the journal's bytes."""
    return [event.stored for event in await journal.events(story.operation.id)]


async def all_of(events: AsyncIterator[ShownEvent]) -> list[ShownEvent]:
    """Read until the stream ends."""
    return [event async for event in events]


async def test_at_once(api: Api, journal: Journal) -> None:
    """The events as the journal stores them, oldest first; the hashes chain them."""
    story = await running(api, journal)
    await story.append(SUCCEEDED)
    answer = await api.client.get(f"/status/{story.operation.id}/events")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert [event["position"] for event in answer.json()["value"]] == [1, 2, 3]
    parts = msgspec.json.decode(answer.content, type=dict[str, list[msgspec.Raw]])["value"]
    assert [bytes(part) for part in parts] == await stored(journal, story)
    events = [decode_event(bytes(part), n) for n, part in enumerate(parts, start=1)]
    assert all(after.previous_hash == before.digest for before, after in itertools.pairwise(events))


async def test_unknown_operations_have_none(api: Api) -> None:
    """404 in either form."""
    for accept in ("application/json", "text/event-stream"):
        for operation_id in ("unknown", "*"):
            answer = await api.client.get(f"/status/{operation_id}/events", headers={"Accept": accept})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "OperationNotFound")
    assert len(api.watchers) == 0


async def test_replay_and_follow(api: Api, journal: Journal) -> None:
    """Past events, then new ones, each with its position, short name and stored bytes, up to the terminal event."""
    story = await running(api, journal)
    async with following(api.client, story.operation.id) as events:
        assert [(await anext(events)).name for _ in range(2)] == ["requested", "started"]
        await story.append(Progressed(percent=5.0))
        assert (await anext(events)).name == "progressed"
        await story.append(SUCCEEDED)
        rest = await all_of(events)
    assert [(event.id, event.name) for event in rest] == [(4, "succeeded")]
    assert rest[0].data == (await stored(journal, story))[3]
    await eventually(lambda: not len(api.watchers))


@pytest.mark.parametrize("last", [0, 1, 2, 3])
async def test_resume(api: Api, journal: Journal, last: int) -> None:
    """`Last-Event-ID` continues just after it, in any replica."""
    story = await running(api, journal)
    await story.append(Progressed(percent=5.0), SUCCEEDED)
    async with following(api.client, story.operation.id, last) as events:
        assert [event.id for event in await all_of(events)] == list(range(last + 1, 5))


async def test_nothing_to_resume(api: Api, journal: Journal) -> None:
    """204 after the terminal event, so that a browser stops to reconnect. An invalid id is refused."""
    story = await running(api, journal)
    await story.append(SUCCEEDED)
    path = f"/status/{story.operation.id}/events"
    for last, status in (("3", 204), ("99", 204), ("x", 400)):
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
        assert (await api.client.get(path, headers=headers)).status_code == status


async def test_many_readers(api: Api, journal: Journal, broker: Broker) -> None:
    """A hundred readers of two replicas get everything once, by one watch in each, and none is left afterwards."""
    story = await running(api, journal)
    async with serving(broker.url) as other, httpx.AsyncClient(timeout=15, limits=httpx.Limits()) as client:

        async def read(replica: Api) -> list[int]:
            headers = {"Accept": "text/event-stream"}
            url = f"{replica.url}/status/{story.operation.id}/events"
            async with client.stream("GET", url, headers=headers) as answer:
                return [int(line[4:]) async for line in answer.aiter_lines() if line.startswith("id: ")]

        reading = [asyncio.create_task(read(replica)) for replica in (api, other) for _ in range(50)]
        await eventually(lambda: sum(one.followers for one in (*api.watchers, *other.watchers)) == 100)
        assert (len(api.watchers), len(other.watchers)) == (1, 1)
        for percent in range(1, 30):
            await story.append(Progressed(percent=float(percent)))
        await story.append(SUCCEEDED)
        for one in await asyncio.gather(*reading):
            assert one == list(range(1, 33))
        await eventually(lambda: not len(api.watchers) + len(other.watchers))


async def test_silence_is_filled(api: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments keep the connection alive while nothing happens."""
    monkeypatch.setattr(history, "PING_INTERVAL", 0.05)
    story = await running(api, journal)
    headers = {"Accept": "text/event-stream"}
    async with api.client.stream("GET", f"/status/{story.operation.id}/events", headers=headers) as answer:
        lines = answer.aiter_lines()
        comments = [line async for line in _first(lines, 3)]
    assert comments == [": still following"] * 3


async def _first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith(":"):
            yield line
            count -= 1
        if not count:
            return


async def test_a_reader_that_disconnects_leaves_nothing(api: Api, journal: Journal) -> None:
    """Nothing is left of a reader that disconnects."""
    story = await running(api, journal)
    async with following(api.client, story.operation.id) as events:
        await anext(events)
        assert len(api.watchers) == 1
    await eventually(lambda: not len(api.watchers))


async def test_a_reader_that_does_not_read_is_dropped(
    api: Api, broker: Broker, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that does not read uses no memory after the timeout; others continue."""
    monkeypatch.setattr(responses, "WRITE_TIMEOUT", 0.3)
    story = await running(api, journal)
    for n in range(100):
        await story.append(Progressed(percent=float(n), message="x" * 4000))
    async with serving(broker.url, send_buffer=4096) as other:
        with socket.create_connection(("127.0.0.1", other.port)) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            path = f"/status/{story.operation.id}/events"
            lazy.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
            await eventually(lambda: len(other.watchers) == 1)
            await eventually(lambda: not len(other.watchers))
            got = await asyncio.to_thread(_rest, lazy)
        assert not got.endswith(b"\r\n0\r\n\r\n"), "the stream ended as if it were whole"
        assert len(got) < 300_000
        await story.append(SUCCEEDED)
        async with following(other.client, story.operation.id) as events:
            assert [event.id for event in await all_of(events)] == list(range(1, 104))


def _rest(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    got = b""
    try:
        while chunk := connection.recv(1 << 20):
            got += chunk
    except ConnectionResetError:
        return got
    return got


async def test_kept_events_are_bounded(api: Api, journal: Journal) -> None:
    """A feed keeps the newest events; a reader that is further behind gets everything page by page."""
    story = await running(api, journal)
    for percent in range(100):
        await story.append(Progressed(percent=float(percent), message="x" * 2000))
    feed = EventFeed(journal, story.operation.id, max_bytes=10_000)
    position, parts = 0, 0
    while position < 102:
        operation, frames = await feed.events_after(position, at_least=0)
        assert operation.position == 102
        assert [frame.position for frame in frames] == list(range(position + 1, frames[-1].position + 1))
        assert len(frames) <= PAGE_SIZE
        position, parts = frames[-1].position, parts + 1
    assert parts > 2
    assert feed.size <= 10_000


async def test_an_unknown_event_is_sent(api: Api, journal: Journal) -> None:
    """Clients may know an event that this version does not know: its name is its whole type."""
    story = await running(api, journal)
    await story.record(Unknown())
    async with following(api.client, story.operation.id) as events:
        assert [(await anext(events)).name for _ in range(3)] == ["requested", "started", Unknown.type]


@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/json, text/event-stream;q=0.1"])
async def test_a_stream_is_asked_for(api: Api, journal: Journal, accept: str) -> None:
    """A client that does not ask for a stream gets the events so far."""
    story = await running(api, journal)
    answer = await api.client.get(f"/status/{story.operation.id}/events", headers={"Accept": accept})
    body: dict[str, Any] = answer.json()
    assert len(body["value"]) == 2


def shown(answer: httpx.Response) -> dict[str, str]:
    """The headers that are those of the representation, not of one answer or one connection."""
    own = {"x-ms-request-id", "date", "content-length", "transfer-encoding"}
    return {name: value for name, value in answer.headers.items() if name not in own}


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_head_has_the_headers_of_get(api: Api, journal: Journal, accept: str) -> None:
    """And nothing else: a HEAD for a stream ends, and leaves no watch."""
    story = await running(api, journal)
    path = f"/status/{story.operation.id}/events"
    answer = await api.client.head(path, headers={"Accept": accept})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"].startswith(accept)
    assert len(api.watchers) == 0
    async with api.client.stream("GET", path, headers={"Accept": accept}) as read:
        assert shown(read) == shown(answer)
    await story.append(SUCCEEDED)
    for last in ("1", "3", "x"):
        headers = {"Accept": accept, "Last-Event-ID": last}
        head, read = await api.client.head(path, headers=headers), await api.client.get(path, headers=headers)
        assert (head.status_code, shown(head)) == (read.status_code, shown(read))


async def test_a_long_history_at_once(api: Api, journal: Journal) -> None:
    """It comes in pieces, and is one document with every event in order; for HEAD there is no body."""
    story = await running(api, journal)
    for percent in range(100):
        await story.append(Progressed(percent=float(percent)))
    path = f"/status/{story.operation.id}/events"
    answer = await api.client.get(path)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.content == b'{"value":[' + b",".join(await stored(journal, story)) + b"]}"
    head = await api.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert (await api.client.get(path)).status_code == 200
