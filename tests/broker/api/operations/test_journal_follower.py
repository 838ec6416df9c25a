"""What an API learns by following the journal, on a real broker: ends, and nothing that is in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest

from opstream_api.operations import journal_follower
from opstream_api.operations.brief_waits import BriefWaits
from opstream_api.operations.journal_follower import JournalFollower
from opstream_api.operations.operation_cache import OperationCache
from opstream_api.operations.status import StatusReader
from opstream_api.operations.watch import WatchRegistry
from opstream_api.queues.queue_positions import QueuePositions
from opstream_api.queues.waiting_reasons import WaitingReasons
from opstream_journal import ActionCatalog, Connection, Journal, SnapshotStore
from opstream_journal.jetstream.rpc import publish
from opstream_journal.jetstream.stream_info import StreamBounds
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_payloads.documents import NO_DOCUMENTS
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, RecordedEvent, Succeeded, encode_event
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, following, linked
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

SUCCEEDED = Succeeded(result=msgspec.Raw(b"7"))


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def cache() -> OperationCache:
    return OperationCache()


def reader(link: Connection, journal: Journal, cache: OperationCache) -> StatusReader:
    """What reads the statuses of one API."""
    return StatusReader(
        journal=journal,
        snapshots=SnapshotStore(link),
        catalog=ActionCatalog(link),
        queue_positions=QueuePositions(ResourceLocks(link, journal), time.monotonic),
        waiting_reasons=WaitingReasons(link, _now, time.monotonic),
        cache=cache,
        documents=NO_DOCUMENTS,
        keys=OperationKeys(link, None),
        now=_now,
    )


def follower_of(link: Connection, journal: Journal, status: StatusReader) -> JournalFollower:
    """The follower of one API, in which no request waits."""
    watches = WatchRegistry(connection=link, journal=journal, status=status)
    return JournalFollower(link, status, watches, BriefWaits(status=status, watches=watches, now=_now))


@contextlib.asynccontextmanager
async def running(follower: JournalFollower, cache: OperationCache, journal: Journal) -> AsyncIterator[None]:
    """Let a follower run, once it surely follows."""
    task = asyncio.create_task(follower.run())
    try:
        await follows(cache, journal, "probe")
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def follows(cache: OperationCache, journal: Journal, name: str) -> None:
    """Wait until the follower sees what happens now."""
    numbers = itertools.count()

    async def is_seen() -> bool:
        operation = cache.put(await begin(journal, f"{name}-{next(numbers)}"))
        await extend(journal, operation, Canceled())
        with contextlib.suppress(AssertionError):
            await eventually(functools.partial(has_status, cache, operation, Status.CANCELED), within=0.2)
            return True
        return False

    await eventually(is_seen, within=15)


def status_of(cache: OperationCache, operation: Operation) -> Status | None:
    known = cache.peek(operation.id)
    return None if known is None else known.status


def has_status(cache: OperationCache, operation: Operation, status: Status) -> bool:
    return status_of(cache, operation) is status


async def test_an_end_is_known_without_a_read(
    broker: Broker, link: Connection, journal: Journal, cache: OperationCache
) -> None:
    """Once the follower has seen the end of a cached operation, its status needs no broker at all."""
    status = reader(link, journal, cache)
    async with running(follower_of(link, journal, status), cache, journal):
        operation = cache.put(await begin(journal, "op-1"))
        ended = await extend(journal, operation, started(), SUCCEEDED)
        await eventually(functools.partial(has_status, cache, operation, Status.SUCCEEDED))
        broker.kill()
        assert await status.read("op-1") == ended


async def test_what_is_not_cached_is_passed_over(link: Connection, journal: Journal, cache: OperationCache) -> None:
    """Operations of other processes take no room in the cache."""
    async with running(follower_of(link, journal, reader(link, journal, cache)), cache, journal):
        other = await extend(journal, await begin(journal, "op-other"), started(), SUCCEEDED)
        mine = cache.put(await begin(journal, "op-mine"))
        await extend(journal, mine, Canceled())
        await eventually(functools.partial(has_status, cache, mine, Status.CANCELED))
        assert cache.peek(other.id) is None


async def test_an_operation_in_doubt_is_not_followed(link: Connection, journal: Journal, cache: OperationCache) -> None:
    """After a lost connection an open state is compared with the view before anything is folded into it (ADR 0032)."""
    status = reader(link, journal, cache)
    async with running(follower_of(link, journal, status), cache, journal):
        doubted = cache.put(await begin(journal, "op-doubted"))
        status.doubt_cached()
        trusted = cache.put(await begin(journal, "op-trusted"))
        await extend(journal, doubted, Canceled())
        await extend(journal, trusted, Canceled())
        await eventually(functools.partial(has_status, cache, trusted, Status.CANCELED))
        assert status_of(cache, doubted) is Status.NOT_STARTED
        assert (await status.read("op-doubted")).status is Status.CANCELED


async def test_a_foreign_event_is_not_folded(link: Connection, journal: Journal, cache: OperationCache) -> None:
    """What other clients write on an operation's subjects changes no cached state."""
    async with running(follower_of(link, journal, reader(link, journal, cache)), cache, journal):
        operation = cache.put(await begin(journal, "op-1"))
        later = cache.put(await begin(journal, "op-2"))
        event = following(operation, Canceled())
        wrong_chain = msgspec.structs.replace(event, previous_hash="0" * 64)
        for data in (b"{", b"", encode_event(wrong_chain), encode_event(following(later, Canceled()))):
            await publish(link, subjects.event_subject("op-1", KIND, "canceled"), data, {})
        await extend(journal, later, Canceled())
        await eventually(functools.partial(has_status, cache, later, Status.CANCELED))
        assert cache.peek("op-1") == operation


async def test_it_goes_on_after_an_outage(
    broker: Broker, link: Connection, journal: Journal, cache: OperationCache
) -> None:
    """A follower whose connection was lost follows again once it is back."""
    status = reader(link, journal, cache)
    async with (
        Proxy(broker.port) as proxy,
        linked(proxy.url) as far,
        running(follower_of(far, journal, status), cache, journal),
    ):
        proxy.cut()
        await follows(cache, journal, "probe-again")


async def test_it_goes_on_after_an_error_of_its_own(
    link: Connection,
    journal: Journal,
    cache: OperationCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever an event does to it, the next ones are heard: requests would wait for their periodic read otherwise."""
    status = reader(link, journal, cache)
    fold = status.fold_next

    def fold_badly(event: RecordedEvent) -> None:
        if event.operation_id == "op-bad":
            raise RuntimeError("no one has thought of that")
        fold(event)

    monkeypatch.setattr(status, "fold_next", fold_badly)
    async with running(follower_of(link, journal, status), cache, journal):
        await extend(journal, cache.put(await begin(journal, "op-bad")), Canceled())
        await follows(cache, journal, "probe-again")
    assert "no one has thought of that" in caplog.text


@pytest.mark.parametrize("is_behind", [False, True], ids=["leader-shows-it", "leader-is-behind"])
async def test_with_several_copies_the_leader_has_to_show_it(
    cluster_link: Connection,
    cluster_journal: Journal,
    cache: OperationCache,
    monkeypatch: pytest.MonkeyPatch,
    is_behind: bool,
) -> None:
    """No status is made of what only another server has delivered; it is a reason to read for requests that wait."""
    status = reader(cluster_link, cluster_journal, cache)
    folded: list[str] = []
    fold = status.fold_next
    monkeypatch.setattr(status, "fold_next", lambda event: (folded.append(event.operation_id), fold(event)))

    async def behind(*_: object) -> StreamBounds:
        return StreamBounds(1, 0, 0)

    if is_behind:
        monkeypatch.setattr(journal_follower, "stream_bounds", behind)
    watches = WatchRegistry(connection=cluster_link, journal=cluster_journal, status=status)
    brief_waits = BriefWaits(status=status, watches=watches, now=_now)
    follower = JournalFollower(cluster_link, status, watches, brief_waits)
    task = asyncio.create_task(follower.run())
    # Its first end may come before the follower has begun; then the first look of the watch finds it.
    for number in itertools.count():
        operation = cache.put(await begin(cluster_journal, f"op-{number}"))
        waiting = asyncio.create_task(watches.wait_until_terminal(operation.id, 60))
        await eventually(lambda: len(watches))
        began = time.monotonic()
        ended = await extend(cluster_journal, operation, started(), SUCCEEDED)
        assert await waiting == ended
        assert time.monotonic() - began < 4
        if folded or number == 3:
            break
    assert bool(folded) is not is_behind
    task.cancel()
    await asyncio.wait([task])
