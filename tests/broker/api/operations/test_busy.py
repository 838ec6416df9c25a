"""Exclusive resources as clients see them: busy while owned, with a queue position while waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from opstream_api.queues import queue_positions as places
from opstream_journal import Connection, Journal, JournalUnavailable, announce_action
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Requested
from opstream_schemas.names import Kind
from opstream_schemas.operation.resource_lock import Claim, LockOwned
from opstream_schemas.operation.state import Operation
from tests.support.api.service import INPUT, Api, OperationStory, serving, spec, started, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

QUEUED = Kind("book", "index")
REMOVE = Kind("book", "remove")


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has an action that rejects, one that waits, and two that share a group."""
    await announce_action(link, spec(exclusive="resource", on_conflict="reject"))
    await announce_action(link, spec(QUEUED, exclusive="resource"))
    await announce_action(link, spec(REMOVE, exclusive="resource", exclusive_group="files", on_conflict="reject"))
    await announce_action(link, spec(Kind("book", "copy"), exclusive="resource", exclusive_group="files"))
    async with serving(broker.url) as api:
        yield api


@pytest.fixture
async def holds(link: Connection, journal: Journal) -> ResourceLocks:
    """Return the `started` event of an owner."""
    holds = ResourceLocks(link, journal)
    await holds.start()
    return holds


async def submitted(api: Api, journal: Journal, operation_id: str, path: str = "/book/42:upload-start") -> Operation:
    """Submit and return the operation."""
    answer = await api.submit(path, headers={"Operation-Id": operation_id})
    assert answer.status_code == 202
    return (await OperationStory.of(journal, operation_id)).operation


def claim(operation: Operation) -> Claim:
    """Build the claim of an operation without an attempt."""
    return Claim(operation_id=operation.id, sequence=operation.stream_sequence, kind=str(operation.kind))


async def take(holds: ResourceLocks, operation: Operation) -> None:
    """Acquire the operation's resource."""
    assert isinstance(await holds.acquire(operation.hold, claim(operation)), LockOwned)


async def test_the_lock_is_recorded(api: Api, journal: Journal) -> None:
    """The request has its lock: by action and resource, or by group and resource; none without a scope."""
    paths = ["/book/42:upload-start", "/book/43:upload-start", "/book/42:remove", "/book/42:copy", "/book:index"]
    found = []
    for number, path in enumerate(paths):
        await submitted(api, journal, f"op-{number}", path)
        (event,) = await journal.events(f"op-{number}")
        assert isinstance(event.data, Requested)
        found.append(event.data.hold)

    assert found == [
        subjects.lock_key("action.book.upload-start", "42"),
        subjects.lock_key("action.book.upload-start", "43"),
        subjects.lock_key("group.files", "42"),
        subjects.lock_key("group.files", "42"),
        subjects.lock_key("action.book.index", ""),
    ]


async def test_a_busy_resource_is_refused(api: Api, journal: Journal, holds: ResourceLocks, link: Connection) -> None:
    """409 with the owner's id, the resource as target, and nothing stored; other resources are free."""
    await take(holds, await submitted(api, journal, "op-1"))
    before = await stored_messages(link)
    answer = await api.submit(headers={"Operation-Id": "op-2"})

    assert answer.status_code == 409
    assert answer.headers["x-ms-error-code"] == "ResourceBusy"
    error = answer.json()["error"]
    assert (error["code"], error["target"]) == ("ResourceBusy", "42")
    assert "operation op-1 holds book 42" in error["message"]
    assert await stored_messages(link) == before
    assert (await api.status("op-2")).status_code == 404
    assert (await api.submit("/book/43:upload-start")).status_code == 202


async def test_an_ended_owner_is_no_reason_to_refuse(api: Api, journal: Journal, holds: ResourceLocks) -> None:
    """Also before its lock is released."""
    operation = await submitted(api, journal, "op-1")
    await take(holds, operation)
    await OperationStory(journal, operation).append(Canceled())

    assert (await api.submit()).status_code == 202


async def test_an_owner_of_the_same_group_counts(api: Api, journal: Journal, holds: ResourceLocks) -> None:
    """Another action of the group owns the resource."""
    await take(holds, await submitted(api, journal, "op-1", "/book/42:copy"))
    answer = await api.submit("/book/42:remove")

    assert answer.status_code == 409
    assert "op-1" in answer.json()["error"]["message"]


@pytest.mark.parametrize("holder", ["op-1", "op-0"])
async def test_a_repeated_request_gets_the_same_response(
    api: Api, journal: Journal, holds: ResourceLocks, holder: str
) -> None:
    """202 for an accepted request, whether its own operation owns the resource or another one does."""
    first = await submitted(api, journal, "op-0")
    second = await submitted(api, journal, "op-1")
    await take(holds, second if holder == "op-1" else first)
    answer = await api.submit(headers={"Operation-Id": "op-1"})

    assert (answer.status_code, answer.json()["id"]) == (202, "op-1")
    other = await api.submit(body={**INPUT, "title": "Emma"}, headers={"Operation-Id": "op-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "OperationIdReused")


async def test_a_repeatable_request_learns_that_it_was_rejected(
    api: Api, journal: Journal, holds: ResourceLocks
) -> None:
    """As for any error that did nothing (OASIS Repeatable Requests 1.0)."""
    await take(holds, await submitted(api, journal, "op-1"))
    headers = {
        "Repeatability-Request-ID": "6c7ab2b5-8d4c-4b52-9c0e-6a3f0c5b7d11",
        "Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT",
    }
    answer = await api.submit(headers=headers)

    assert (answer.status_code, answer.headers["Repeatability-Result"]) == (409, "rejected")


async def test_the_queue_position_counts_down(api: Api, journal: Journal, holds: ResourceLocks) -> None:
    """1 is next. The owner, and an operation not yet queued, have no position. Each position is another ETag."""
    first, second, third = [await submitted(api, journal, f"op-{n}", "/book/42:index") for n in (1, 2, 3)]
    await take(holds, first)
    for waiting in (third, second):
        await holds.enqueue(waiting.hold, waiting, claim(waiting), is_watchful=False)

    assert [await place(api, f"op-{n}") for n in (1, 2, 3)] == [None, 1, 2]
    etag = (await api.status("op-3")).headers["ETag"]
    await holds.release(await OperationStory(journal, first).append(Canceled()))
    assert [await place(api, f"op-{n}") for n in (2, 3)] == [None, 1]
    changed = await api.client.get("/status/op-3", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["queuePosition"]) == (200, 1)
    same = await api.client.get("/status/op-3", headers={"If-None-Match": changed.headers["ETag"]})
    assert same.status_code == 304
    await holds.release(await OperationStory(journal, second).append(Canceled()))
    assert await place(api, "op-3") is None


async def place(api: Api, operation_id: str) -> Any:
    """Return the monitor's queue position."""
    answer = await api.status(operation_id)
    assert answer.status_code == 200
    return answer.json().get("queuePosition")


async def test_a_started_operation_has_no_queue_position(api: Api, journal: Journal, holds: ResourceLocks) -> None:
    """Also if its queue entry was left behind."""
    first, second = [await submitted(api, journal, f"op-{n}", "/book/42:index") for n in (1, 2)]
    await take(holds, first)
    await holds.enqueue(second.hold, second, claim(second), is_watchful=False)
    assert await place(api, "op-2") == 1
    await OperationStory(journal, second).append(started())

    assert await place(api, "op-2") is None


async def test_a_queue_that_can_not_be_read_is_left_out(
    api: Api, journal: Journal, holds: ResourceLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status comes from the journal, and does not depend on the queue."""
    first, second = [await submitted(api, journal, f"op-{n}", "/book/42:index") for n in (1, 2)]
    await take(holds, first)
    await holds.enqueue(second.hold, second, claim(second), is_watchful=False)

    async def unreadable(*_: object) -> dict[str, int]:
        raise JournalUnavailable("nobody answers", maybe_stored=False)

    monkeypatch.setattr(ResourceLocks, "queue_positions", unreadable)
    assert await place(api, "op-2") is None


async def test_polls_share_one_read_of_a_long_queue(
    api: Api, journal: Journal, holds: ResourceLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling all operations of a queue must not cost the square of its length."""
    monkeypatch.setattr(places, "_LONG_QUEUE", 2)
    monkeypatch.setattr(places, "_CACHE_SECONDS_PER_WAITER", 10.0)
    first, *waiting = [await submitted(api, journal, f"op-{n}", "/book/42:index") for n in range(1, 6)]
    await take(holds, first)
    for one in waiting:
        await holds.enqueue(one.hold, one, claim(one), is_watchful=False)
    looks: list[str] = []
    look = ResourceLocks.queue_positions

    async def counted(self: ResourceLocks, hold: str) -> dict[str, int]:
        looks.append(hold)
        return await look(self, hold)

    monkeypatch.setattr(ResourceLocks, "queue_positions", counted)
    found = await asyncio.gather(*(place(api, one.id) for one in waiting))

    assert list(found) == [1, 2, 3, 4]
    assert [await place(api, one.id) for one in waiting] == [1, 2, 3, 4]
    assert looks == [first.hold]


async def test_waiting_for_the_end_is_as_before(api: Api, journal: Journal, holds: ResourceLocks) -> None:
    """`Prefer: wait` waits until its time is up, and then has the position."""
    first, second = [await submitted(api, journal, f"op-{n}", "/book/42:index") for n in (1, 2)]
    await take(holds, first)
    await holds.enqueue(second.hold, second, claim(second), is_watchful=False)
    answer = await api.wait("op-2", 1)

    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "NotStarted")
    assert (body["queuePosition"], body["waitingFor"]) == (1, "Resource")
