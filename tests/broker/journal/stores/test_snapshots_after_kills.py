"""What a killed broker restores of the view and of the locks, and what becomes of it (docs/adr/0016)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opstream_journal import NEW_OPERATION, Connection, Journal, SnapshotStore, announce_action
from opstream_journal.jetstream.kv import KeyValueBucket
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, EventData, Requested
from opstream_schemas.operation.resource_lock import Claim, LockOwned
from opstream_schemas.operation.state import Operation, Status
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, folded
from tests.support.projector.projection import LIFE, is_gone, projector, reaches, running, settled, utc_now
from tests.support.schemas.histories import request
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


HOLD = subjects.lock_key("action.book.upload-start", "42")


def claim(operation: Operation) -> Claim:
    """Of an operation that has only been requested."""
    return Claim(operation_id=operation.id, sequence=operation.stream_sequence, kind=str(KIND))


def short(*, deadline: float, retention: float = 1.0) -> Requested:
    """A request of which all should be forgotten soon; seconds from now, and from its end."""
    return request(deadline=utc_now() + timedelta(seconds=deadline), retention=retention)


async def requested(journal: Journal, operation_id: str, data: Requested, *following: EventData) -> Operation:
    """Store the beginning of an operation."""
    stored = await journal.append(KIND, first(operation_id, data=data), NEW_OPERATION, budget=5)
    return await extend(journal, folded(None, stored), *following)


async def kill(broker: Broker, link: Connection, view: SnapshotStore) -> None:
    """SIGKILL the broker, start it again, and wait until it serves the view."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    broker.start()
    assert await eventually(lambda: serves(link, view), within=20)


async def serves(link: Connection, view: SnapshotStore) -> bool:
    """Whether the broker answers from the view."""
    return link.is_connected and (await view.get_newest("other")).revision > 0


async def is_unknown(api: Api, operation_id: str) -> bool:
    """Whether the API says 404. It may say 503 while it connects again, and must never show a status."""
    answer = await api.status(operation_id)
    assert answer.status_code in {404, 503}
    return answer.status_code == 404


async def test_a_running_that_comes_back_goes_away(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """A broker that is killed brings back what an expired snapshot had replaced: no client sees it, and it expires."""
    await announce_action(link, spec())
    # Without another snapshot the broker would drop the whole file, and could bring nothing back.
    await requested(journal, "other", short(deadline=3_600))
    operation = await requested(journal, "ended", short(deadline=6), *LIFE[:2])
    async with running(projector(link, journal)), serving(broker.url) as api:
        await eventually(lambda: reaches(view, "ended", 3), within=5)
        await extend(journal, operation, LIFE[2])
        await settled(link)
        await eventually(lambda: is_gone(view, "ended"), within=5)

        await kill(broker, link, view)

        back = (await view.get_newest("ended")).operation
        assert back is not None
        assert back.status is Status.RUNNING
        await eventually(lambda: is_unknown(api, "ended"), within=5)
        assert await eventually(lambda: is_gone(view, "ended"), within=15)

        await kill(broker, link, view)

        assert await is_gone(view, "ended")


async def test_no_hold_comes_back(broker: Broker, link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Neither an owner nor a waiter comes back, however often its key was written before its removal."""
    await view.put(await begin(journal, "other"), 0)
    holds = ResourceLocks(link, journal)
    await holds.start()
    cells = KeyValueBucket(link, lambda low, _high: low)
    await cells.start()
    await cells.put("other", b"keeps the file")
    one, two, three = [await requested(journal, name, request(hold=HOLD)) for name in ("one", "two", "three")]
    assert await holds.acquire(HOLD, claim(one)) == LockOwned(is_handed=False)
    for _ in range(2):  # its message was delivered twice
        await holds.enqueue(HOLD, two, claim(two), is_watchful=False)
    for ended in (one, two):
        await holds.release(await extend(journal, ended, Canceled(reason="enough")))
    assert list(await cells.read_all(">")) == ["other"]

    await kill(broker, link, view)

    assert list(await cells.read_all(">")) == ["other"]
    assert await holds.owner(HOLD) is None
    assert await holds.acquire(HOLD, claim(three)) == LockOwned(is_handed=False)
    assert {key[:1] for key in await cells.read_all(">")} == {"h", "o"}
