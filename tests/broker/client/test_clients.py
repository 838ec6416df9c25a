"""Both clients with the real API. The tests append events as a runner would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from opstream import (
    AsyncOperationsClient,
    Operation,
    OperationCanceled,
    OperationEvent,
    OperationFailed,
    OperationsClient,
    RequestRefused,
    ServiceUnavailable,
    WaitTimeout,
)
from opstream.client.transport import CONNECTION_LIMITS
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Canceled, CancelRequested, Failed, Progressed, Started, Succeeded
from tests.support.api.service import (
    INPUT,
    Api,
    OperationStory,
    UploadStart,
    UploadStarted,
    failure,
    serving,
    spec,
    started,
)
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

UPLOAD = "book/42:upload-start"
RESULT = msgspec.json.encode(UploadStarted("t-1"))


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AsyncOperationsClient]:
    """An async client of the service."""
    async with connected(api.url) as client:
        yield client


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[AsyncOperationsClient]:
    """An httpx client without proxies of the environment."""
    async with httpx.AsyncClient(trust_env=False, verify=False, limits=CONNECTION_LIMITS) as http:
        yield AsyncOperationsClient(url, http=http, **options)


async def collected(client: AsyncOperationsClient, operation_id: str, into: list[OperationEvent]) -> None:
    async for event in client.events(operation_id, follow=True):
        into += [event]


async def test_from_submit_to_result(client: AsyncOperationsClient, journal: Journal, api: Api) -> None:
    """From a struct as input to a struct as result."""
    operation = await client.submit(UPLOAD, UploadStart("Moby Dick"))
    assert (operation.status, operation.monitor.kind) == ("NotStarted", "book:upload-start")
    assert (operation.monitor.resource_id, operation.url) == ("42", f"{api.url}/status/{operation.id}")
    story = await OperationStory.of(journal, operation.id)
    waiting = asyncio.create_task(client.result(operation, UploadStarted))
    await story.append(started(), Progressed(percent=40.0, message="copying"))
    await story.append(Succeeded(result=msgspec.Raw(RESULT)))
    begin = time.monotonic()
    assert await waiting == UploadStarted("t-1")
    assert time.monotonic() - begin < 1
    assert (await client.status(operation.id)).status == "Succeeded"


async def test_the_same_submit_again(client: AsyncOperationsClient, journal: Journal) -> None:
    """A repeated submit is the same operation; another request with its id is refused."""
    first = await client.submit(UPLOAD, INPUT, operation_id="mine")
    assert await client.submit(UPLOAD, INPUT, operation_id="mine") == first
    assert len(await journal.events("mine")) == 1
    with pytest.raises(RequestRefused, match="operation mine of another request: use a new one") as caught:
        await client.submit("book/43:upload-start", INPUT, operation_id="mine")
    assert (caught.value.status, caught.value.code) == (400, "OperationIdReused")


async def test_a_broken_input(client: AsyncOperationsClient) -> None:
    """The error has each problem with its place."""
    with pytest.raises(RequestRefused) as caught:
        await client.submit(UPLOAD, {"title": 1, "files": [{"path": "a"}]})
    assert caught.value.code == "InvalidInput"
    assert {detail.target for detail in caught.value.details} == {"title", "files[0].hash"}


async def test_every_state_is_seen(client: AsyncOperationsClient, journal: Journal) -> None:
    """`on_change` is called with each state within the poll interval, and with the end at once."""
    seen: list[tuple[str, float | None]] = []

    def watch(operation: Operation) -> None:
        seen.append((operation.status, operation.monitor.percent_complete))

    operation = await client.submit(UPLOAD, INPUT)
    story = await OperationStory.of(journal, operation.id)
    waiting = asyncio.create_task(client.wait(operation, on_change=watch))
    await story.append(started(), Progressed(percent=40.0, message="copying"))
    await eventually(lambda: seen)
    await story.append(Failed(error=failure()))
    assert (await waiting).status == "Failed"
    assert seen == [("Running", 40.0), ("Failed", 40.0)]


async def test_a_failure(client: AsyncOperationsClient, journal: Journal) -> None:
    """The exception has the action's error."""
    operation = await client.submit(UPLOAD, INPUT)
    await (await OperationStory.of(journal, operation.id)).append(
        started(), Failed(error=failure("ClientOutOfDate", "update"))
    )
    with pytest.raises(OperationFailed, match=f"operation {operation.id} failed: ClientOutOfDate: update") as caught:
        await client.result(operation.id)
    assert caught.value.code == "ClientOutOfDate"
    with pytest.raises(RequestRefused) as refused:
        await client.cancel(operation)
    assert (refused.value.status, refused.value.code) == (409, "OperationFinished")


async def test_a_cancellation(client: AsyncOperationsClient, journal: Journal) -> None:
    """An open operation is canceled at once, a running one when it has stopped; the error has the reason."""
    idle, busy = [await client.submit(UPLOAD, INPUT) for _ in range(2)]
    story = await OperationStory.of(journal, busy.id)
    await story.append(started())
    assert (await client.cancel(idle, reason="changed my mind")).status == "Canceled"
    assert (await client.cancel(busy, reason="too slow")).status == "Running"
    waiting = asyncio.create_task(client.result(busy))
    story = await OperationStory.of(journal, busy.id)
    assert story.operation.cancel is not None
    await story.append(Canceled(reason=story.operation.cancel.reason))
    for call, reason in ((client.result(idle), "changed my mind"), (waiting, "too slow")):
        with pytest.raises(OperationCanceled) as caught:
            await call
        assert caught.value.reason == reason
    assert (await client.cancel(idle)).status == "Canceled"


async def test_events_as_they_happen(client: AsyncOperationsClient, journal: Journal) -> None:
    """A follower gets each event when it is recorded, byte for byte; afterwards the history is the same."""
    operation = await client.submit(UPLOAD, INPUT)
    story = await OperationStory.of(journal, operation.id)
    seen: list[OperationEvent] = []
    following = asyncio.create_task(collected(client, operation.id, seen))
    await eventually(lambda: [event.name for event in seen] == ["requested"])
    await story.append(started(), CancelRequested(reason="enough"))
    await eventually(lambda: len(seen) == 3)
    await story.append(Canceled(reason="enough"))
    await following
    recorded = await journal.events(operation.id)
    assert [(event.position, event.stored, event.time, event.data) for event in seen] == [
        (event.position, event.stored, event.time, event.data) for event in recorded
    ]
    assert isinstance(seen[1].data, Started)
    assert [event async for event in client.events(operation)] == seen
    assert [event async for event in client.events(operation, after=3)] == seen[3:]
    assert [event async for event in client.events(operation, follow=True, after=2)] == seen[2:]
    assert [event async for event in client.events(operation, follow=True, after=4)] == []


async def test_a_connection_that_breaks(api: Api, journal: Journal) -> None:
    """A wait and a stream continue after a broken connection; no event is seen twice or missed."""
    async with Proxy(api.port) as proxy, connected(proxy.url.replace("nats://", "http://")) as client:
        operation = await client.submit(UPLOAD, INPUT)
        story = await OperationStory.of(journal, operation.id)
        seen: list[OperationEvent] = []
        following = asyncio.create_task(collected(client, operation.id, seen))
        waiting = asyncio.create_task(client.wait(operation))
        for attempt in (1, 2, 3):
            await eventually(lambda attempt=attempt: len(seen) == attempt)  # type: ignore[misc]
            proxy.cut()
            await story.append(started() if attempt == 1 else Progressed(percent=10.0 * attempt))
        await story.append(Succeeded(result=msgspec.Raw(RESULT)))
        await following
        assert (await waiting).status == "Succeeded"
        assert [event.position for event in seen] == [1, 2, 3, 4, 5]


async def test_an_answer_that_is_lost(api: Api, journal: Journal) -> None:
    """A recorded submit without a response is sent again and finds its operation."""
    async with Proxy(api.port) as proxy:
        proxy.mute()
        troubles: list[str] = []

        async def on_retry(trouble: str, _pause: float) -> None:
            troubles.append(trouble)
            proxy.unmute()

        async with connected(proxy.url.replace("nats://", "http://"), on_retry=on_retry) as client:
            submitting = asyncio.create_task(client.submit(UPLOAD, INPUT, operation_id="mine"))
            await eventually(lambda: journal.events("mine"))
            proxy.cut()
            assert (await submitting).id == "mine"
    assert len(troubles) == 1
    assert len(await journal.events("mine")) == 1


async def test_the_broker_is_away(
    client: AsyncOperationsClient, broker: Broker, journal: Journal, link: Connection
) -> None:
    """A short call fails with the id to submit again; a long wait continues and sees the later end."""
    operation = await client.submit(UPLOAD, INPUT)
    waiting = asyncio.create_task(client.wait(operation))
    with pytest.raises(WaitTimeout, match=f"operation {operation.id} is NotStarted after 0.2 s"):
        await client.wait(operation, timeout=0.2)
    broker.stop()
    with pytest.raises(ServiceUnavailable, match="submit it again with operation_id='mine'") as caught:
        await client.submit(UPLOAD, INPUT, operation_id="mine", timeout=1.0)
    assert caught.value.operation_id == "mine"
    broker.start()
    assert await link.wait_connected(10)
    story = await OperationStory.of(journal, operation.id)
    await story.append(started(), Succeeded(result=msgspec.Raw(RESULT)))
    async with asyncio.timeout(60):
        assert (await waiting).status == "Succeeded"


async def test_many_wait_at_once(api: Api) -> None:
    """More waits than httpx allows connections by default run at the same time."""
    async with AsyncOperationsClient(api.url) as client:
        operations = await asyncio.gather(*(client.submit(UPLOAD, INPUT) for _ in range(130)))
        waits = [asyncio.create_task(client.wait(operation)) for operation in operations]
        async with asyncio.timeout(60):
            await client.cancel(operations[-1])
            assert (await waits[-1]).status == "Canceled"
            await asyncio.gather(*(client.cancel(operation) for operation in operations[:-1]))
            ends = [operation.status for operation in await asyncio.gather(*waits[:-1])]
    assert ends == ["Canceled"] * 129


async def test_the_sync_client(api: Api, journal: Journal) -> None:
    """The sync client makes the same calls, from a thread."""
    http = httpx.Client(trust_env=False, verify=False)
    with OperationsClient(api.url, http=http) as client, http:
        operation = await asyncio.to_thread(client.submit, UPLOAD, UploadStart("Moby Dick"))
        story = await OperationStory.of(journal, operation.id)
        seen: list[str] = []

        def follow() -> None:
            seen.extend(event.name for event in client.events(operation, follow=True))

        following = asyncio.create_task(asyncio.to_thread(follow))
        waiting = asyncio.create_task(asyncio.to_thread(client.result, operation, UploadStarted))
        await story.append(started(), Succeeded(result=msgspec.Raw(RESULT)))
        assert await waiting == UploadStarted("t-1")
        await following
        assert seen == ["requested", "started", "succeeded"]
        with pytest.raises(RequestRefused, match="UnknownAction"):
            await asyncio.to_thread(client.submit, "cook:fry")
        with pytest.raises(RequestRefused, match="OperationNotFound"):
            await asyncio.to_thread(client.status, "nobody")
