"""`Prefer: wait` on a real broker without runner and projector: the tests append events themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from nats.aio.msg import Msg

from opstream_api.operations import watch
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Failed, Progressed, Succeeded, encode_event
from tests.support.api.service import Api, OperationStory, failure, serving, spec, started
from tests.support.broker.server import Broker
from tests.support.journal.journals import following
from tests.support.runner.stage import READS
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

SUCCEEDED = Succeeded(result=msgspec.Raw(b"{}"))


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec(retry_after=2))
    async with serving(broker.url) as api:
        yield api


async def running(api: Api, journal: Journal) -> OperationStory:
    """An operation that a runner has started."""
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await story.append(started())
    return story


async def start_waiting(api: Api, story: OperationStory, seconds: int = 30) -> asyncio.Task[httpx.Response]:
    """Start a request that waits for an operation; return once it waits."""
    waiting = asyncio.create_task(api.wait(story.operation.id, seconds))
    await eventually(lambda: len(api.watchers) or waiting.done())
    return waiting


@pytest.mark.parametrize("end", [SUCCEEDED, Failed(error=failure()), Canceled()])
async def test_it_is_answered_at_the_end(api: Api, journal: Journal, end: Succeeded | Failed | Canceled) -> None:
    """Any terminal event ends the wait, long before the next periodic read; other events do not."""
    story = await running(api, journal)
    waiting = await start_waiting(api, story)
    await story.append(Progressed(percent=5.0))
    assert not waiting.done()
    began = time.monotonic()
    await story.append(end)
    answer = await waiting
    assert time.monotonic() - began < watch.REFRESH_INTERVAL / 2
    assert (answer.status_code, answer.json()["status"].lower()) == (200, end.name)
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert "Retry-After" not in answer.headers
    await eventually(lambda: not len(api.watchers))


async def test_it_is_answered_by_another_replica(broker: Broker, api: Api, journal: Journal) -> None:
    """All waiting requests get the end, whichever process appended it."""
    async with serving(broker.url) as other:
        story = await running(api, journal)
        waiting = [await start_waiting(api, story), await start_waiting(other, story)]
        await story.append(SUCCEEDED)
        assert {(await one).json()["status"] for one in waiting} == {"Succeeded"}


async def test_the_time_is_up(api: Api, journal: Journal) -> None:
    """The response is then the current monitor, with `Retry-After`."""
    story = await running(api, journal)
    began = time.monotonic()
    waiting = await start_waiting(api, story, seconds=1)
    await story.append(Progressed(percent=40.0))
    answer = await waiting
    assert time.monotonic() - began >= 1
    assert (answer.status_code, answer.headers["Retry-After"]) == (200, "2")
    assert answer.json()["percentComplete"] == 40.0


async def test_what_is_over_is_not_waited_for(api: Api, journal: Journal) -> None:
    """For a terminal operation, and for none at all, the response comes at once."""
    story = await running(api, journal)
    await story.append(SUCCEEDED)
    began = time.monotonic()
    assert (await api.wait(story.operation.id, 30)).json()["status"] == "Succeeded"
    for unknown in ("no-such-operation", "*", "%3E", "a.b"):
        assert (await api.wait(unknown, 30)).status_code == 404
    assert time.monotonic() - began < 5
    assert len(api.watchers) == 0


async def test_the_limit_is_in_the_response(api: Api, journal: Journal) -> None:
    """A client that wants to wait for an hour learns the service's limit."""
    story = await running(api, journal)
    await story.append(SUCCEEDED)
    assert (await api.wait(story.operation.id, 3600)).headers["Preference-Applied"] == "wait=60"
    assert "Preference-Applied" not in (await api.status(story.operation.id)).headers


async def test_one_read_for_all(api: Api, link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing happens, there is one read in each interval, however many requests wait."""
    monkeypatch.setattr(watch, "REFRESH_INTERVAL", 0.5)
    story = await running(api, journal)
    waiting = [await start_waiting(api, story, seconds=20) for _ in range(30)]
    await eventually(lambda: next(iter(api.watchers)).users == 30)
    reads = []

    async def note(message: Msg) -> None:
        reads.append(time.monotonic())

    await link.nc.subscribe(READS, cb=note)
    # Each of them reads once when it comes, perhaps only now.
    await eventually(lambda: reads and time.monotonic() - reads[-1] > 0.2)
    reads.clear()
    began = time.monotonic()
    await eventually(lambda: len(reads) >= 4)
    assert len(reads) <= (time.monotonic() - began) / 0.4 + 1
    assert len(api.watchers) == 1
    await story.append(SUCCEEDED)
    assert {(await one).json()["status"] for one in waiting} == {"Succeeded"}


async def test_notifications_may_be_lost(api: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any notification the periodic read finds the end."""

    def deaf(_self: watch.Watch, _event_name: str, _sequence: int) -> None:
        return

    monkeypatch.setattr(watch, "REFRESH_INTERVAL", 0.3)
    monkeypatch.setattr(watch.Watch, "notify", deaf)
    story = await running(api, journal)
    waiting = await start_waiting(api, story)
    await story.append(SUCCEEDED)
    assert (await waiting).json()["status"] == "Succeeded"


async def test_a_refused_end_ends_nothing(api: Api, link: Connection, journal: Journal) -> None:
    """A terminal event that the stream refused ends nothing; the one that is stored afterwards does."""
    story = await running(api, journal)
    waiting = await start_waiting(api, story)
    operation = story.operation
    subject = subjects.event_subject(operation.id, operation.kind, "succeeded")
    answer = await link.nc.request(subject, b"{}", headers={"Nats-Expected-Last-Sequence": "999999"})
    assert b"error" in answer.data
    await story.append(Progressed(percent=3.0))
    assert not waiting.done()
    await story.append(Failed(error=failure("late", "the real end")))
    assert (await waiting).json()["error"]["code"] == "late"


async def test_a_foreign_message_ends_nothing(api: Api, link: Connection, journal: Journal) -> None:
    """What is stored on the subject of an end, and is none, is answered as a read answers it, and at once."""
    story = await running(api, journal)
    waiting = await start_waiting(api, story)
    operation = story.operation
    subject = subjects.event_subject(operation.id, operation.kind, "succeeded")
    began = time.monotonic()
    assert b"error" not in (await link.nc.request(subject, b"{}")).data
    answer, read = await waiting, await api.status(operation.id)
    assert time.monotonic() - began < watch.REFRESH_INTERVAL / 2
    assert (answer.status_code, answer.json()["error"]["code"]) == (read.status_code, read.json()["error"]["code"])


async def test_an_end_that_is_stored_long_after_it_was_sent(api: Api, link: Connection, journal: Journal) -> None:
    """A batch stores its events later than the broker passes them to subscribers. A request in between gets the end."""
    story = await running(api, journal)
    other = await running(api, journal)
    ends = [following(one.operation, SUCCEEDED) for one in (story, other)]
    first, last = ({"Nats-Batch-Id": "late", "Nats-Batch-Sequence": str(number)} for number in (1, 2))
    subject_of = [subjects.event_subject(one.operation.id, one.operation.kind, "succeeded") for one in (story, other)]
    await link.nc.request(subject_of[0], encode_event(ends[0]), headers=first)
    waiting = await start_waiting(api, story)
    await eventually(lambda: next(iter(api.watchers)).operation is not None)
    began = time.monotonic()
    await link.nc.request(subject_of[1], encode_event(ends[1]), headers=last | {"Nats-Batch-Commit": "1"})
    assert (await waiting).json()["status"] == "Succeeded"
    assert time.monotonic() - began < watch.REFRESH_INTERVAL / 2


async def test_a_client_that_disconnects_leaves_nothing(api: Api, journal: Journal) -> None:
    """The wait of a client that disconnects ends."""
    story = await running(api, journal)
    head = f"GET /status/{story.operation.id} HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\n\r\n"
    async with api.connection() as (_, writer):
        writer.write(head.encode())
        await eventually(lambda: len(api.watchers))
    await eventually(lambda: not len(api.watchers))


async def test_a_service_that_stops_responds(broker: Broker, api: Api, journal: Journal) -> None:
    """When the service stops, a waiting request gets the current monitor."""
    story = await running(api, journal)
    async with httpx.AsyncClient(timeout=15) as client:
        async with serving(broker.url) as other:
            waiting = asyncio.create_task(
                client.get(f"{other.url}/status/{story.operation.id}", headers={"Prefer": "wait=60"})
            )
            await eventually(lambda: len(other.watchers))
        answer = await waiting
    assert (answer.status_code, answer.json()["status"], answer.headers["Retry-After"]) == (200, "Running", "2")


async def test_an_etag_saves_the_body(api: Api, journal: Journal) -> None:
    """The same state has the same ETag in any replica; a client that has it gets 304 with `Retry-After`."""
    story = await running(api, journal)
    etag = (await api.status(story.operation.id)).headers["ETag"]
    path = f"/status/{story.operation.id}"
    same = await api.client.get(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    assert same.headers["Retry-After"] == "2"
    await story.append(Progressed(percent=1.0))
    changed = await api.client.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag
