"""In whose name a bulk operation acts, what it reaches, and how it ends with its credentials."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from opstream_api.bulk.service import TURNS
from opstream_index.operation_row import row_of
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Failed
from opstream_schemas.names import Kind
from opstream_schemas.subjects import ACCESS_LOG_STREAM
from tests.support.access.desk import AccessDesk, CallerWithKey, serving_with_keys
from tests.support.api.service import JSON, OperationStory, failure, spec, started
from tests.support.broker.server import Broker
from tests.support.index.filled_index import FilledIndex
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ALL = ("submit", "read", "cancel")
SHELF = Kind("shelf", "index")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FilledIndex]:
    """An empty index that is complete for the whole test."""
    found = FilledIndex(tmp_path)
    found.complete_until(time.time_ns() // 1000 + 3_600_000_000)
    yield found
    found.close()


@pytest.fixture
async def desk(broker: Broker, link: Connection, index: FilledIndex) -> AsyncIterator[AccessDesk]:
    """A service with an index and two actions, which asks for API keys."""
    await announce_action(link, spec())
    await announce_action(link, spec(SHELF))
    async with serving_with_keys(broker, link, index=index.location) as desk:
        yield desk


class Shelf:
    """Operations that the index has, too."""

    def __init__(self, desk: AccessDesk, journal: Journal, index: FilledIndex) -> None:
        self._desk = desk
        self._journal = journal
        self._index = index

    async def failed(self, caller: CallerWithKey, own_id: str, path: str = "/book/42:upload-start") -> None:
        """A failed operation."""
        await self.made(caller, own_id, path, started(), Failed(error=failure()))

    async def made(self, caller: CallerWithKey, own_id: str, path: str, *events: Any) -> None:
        """An operation with some events."""
        assert (await caller.submit(path, headers={"Operation-Id": own_id})).status_code == 202
        story = await OperationStory.of(self._journal, self._desk.ids.stored_id(caller.record.tenant, own_id))
        await story.append(*events)
        self._index.write(row_of(story.operation))


@pytest.fixture
def shelf(desk: AccessDesk, journal: Journal, index: FilledIndex) -> Shelf:
    """What makes operations."""
    return Shelf(desk, journal, index)


async def bulk(caller: CallerWithKey, act: str = "retry", **more: str) -> httpx.Response:
    """POST a bulk request for all."""
    params = {"filter": "createdAt gt 2026-01-01T00:00:00Z", "perSecond": "500", **more}
    return await caller.client.post(f"/status:{act}", params=params, headers={"Content-Type": JSON})


async def ended(caller: CallerWithKey, answer: httpx.Response) -> dict[str, Any]:
    """The status monitor of a bulk operation once it has ended."""
    assert answer.status_code == 202, answer.text
    monitor: dict[str, Any] = (await caller.get(f"/status/{answer.json()['id']}", Prefer="wait=20")).json()
    return monitor


async def test_it_reaches_what_its_caller_may_read(desk: AccessDesk, shelf: Shelf) -> None:
    """Its own operations; with `read:all` those of its tenant; never another tenant's, not even as a number."""
    ann, bob = await desk.caller("acme", "ann", *ALL), await desk.caller("acme", "bob", *ALL)
    eve = await desk.caller("evil", "eve", "admin")
    root = await desk.caller("acme", "root", "read:all", "submit")
    await shelf.failed(ann, "of-ann")
    await shelf.failed(bob, "of-bob")
    counts = {
        caller.record.subject: (await bulk(caller, dryRun="true")).json()["count"] for caller in (ann, bob, eve, root)
    }
    assert counts == {"ann": 1, "bob": 1, "eve": 0, "root": 2}
    monitor = await ended(ann, await bulk(ann))
    assert monitor["result"] == {"matched": 1, "done": 1, "refused": 0, "refusals": []}
    assert (await ann.get("/status/of-ann-retry-1")).status_code == 200
    assert (await bob.get("/status/of-bob-retry-1")).status_code == 404
    assert (await ended(eve, await bulk(eve)))["result"]["matched"] == 0
    assert (await bob.get(f"/status/{monitor['id']}")).status_code == 404


async def test_follow_ups_are_its_caller_s(desk: AccessDesk, shelf: Shelf, link: Connection) -> None:
    """Also of other callers' operations, which the access log has once, with the filter. What is another caller's
    follow-up already is refused."""
    ann, root = await desk.caller("acme", "ann", *ALL), await desk.caller("acme", "root", "admin")
    await shelf.failed(ann, "one")
    await shelf.failed(ann, "two")
    assert (await ann.client.post("/status/two:retry")).status_code == 202
    answer = await bulk(root)
    monitor = await ended(root, answer)
    assert monitor["result"]["done"] == 2, monitor
    assert (await root.get("/status/one-retry-1")).json()["retryOf"] == "one"
    assert (await ann.get("/status/one-retry-1")).status_code == 404
    refused = await ended(ann, await bulk(ann))
    (item,) = refused["result"]["refusals"]
    assert (item["id"], item["code"]) == ("one", "OperationNotRetriable")
    assert "one-retry-1" not in item["message"]

    async def is_recorded() -> bool:
        return (await link.nc.jetstream().stream_info(ACCESS_LOG_STREAM)).state.messages >= 1

    await eventually(is_recorded, within=5)
    record = (await link.nc.jetstream().get_last_msg(ACCESS_LOG_STREAM, "access_log.act.retried")).data
    assert record is not None
    assert desk.ids.stored_id("acme", monitor["id"]).encode() in record
    assert b"createdAt gt 2026-01-01" in record


async def test_each_item_takes_its_own_scope(desk: AccessDesk, shelf: Shelf) -> None:
    """To retry: that to submit its action. What lacks is named, and stops nothing."""
    ann = await desk.caller("acme", "ann", *ALL)
    await shelf.failed(ann, "book")
    await shelf.failed(ann, "shelf", "/shelf/1:index")
    narrow = await desk.caller("acme", "ann", "read", "submit:book:*")
    monitor = await ended(narrow, await bulk(narrow))
    (item,) = monitor["result"]["refusals"]
    assert (monitor["result"]["done"], item["id"], item["code"]) == (1, "shelf", "Forbidden")


async def test_denied_items_are_in_the_access_log(
    broker: Broker, link: Connection, journal: Journal, index: FilledIndex
) -> None:
    """As the denial of a request for each of them alone."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, index=index.location) as desk:
        shelf = Shelf(desk, journal, index)
        ann, narrow = await desk.caller("acme", "ann", *ALL), await desk.caller("acme", "ann", "read", "submit:shelf:*")
        await shelf.failed(ann, "one")
        await shelf.failed(ann, "two")
        assert (await ended(narrow, await bulk(narrow)))["result"]["refused"] == 2
    record = (await link.nc.jetstream().get_last_msg(ACCESS_LOG_STREAM, "access_log.denied.caller")).data
    assert record is not None
    denied = msgspec.json.decode(record)
    assert (denied["reason"], denied["caller"], denied["count"]) == ("missing-scope", "ann", 2)
    assert (denied["keyId"], denied["path"]) == (narrow.record.id, "/status/{id}:retry")


@pytest.mark.parametrize(
    ("act", "scopes"), [("retry", ("submit",)), ("retry", ("read", "cancel")), ("cancel", ("read", "submit"))]
)
async def test_without_the_scope_nothing_begins(desk: AccessDesk, act: str, scopes: tuple[str, ...]) -> None:
    """Neither a dry run nor a bulk operation."""
    caller = await desk.caller("acme", "ann", *scopes)
    for dry in ("true", "false"):
        answer = await bulk(caller, act, dryRun=dry)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")
    stranger = await desk.api.client.post(f"/status:{act}")
    assert stranger.status_code == 401


async def test_only_an_admin_cancels_what_is_not_its_own(desk: AccessDesk, shelf: Shelf) -> None:
    """With `read:all` a caller sees it, and its bulk request does not select it."""
    ann = await desk.caller("acme", "ann", *ALL)
    reader = await desk.caller("acme", "bob", "read:all", "cancel")
    root = await desk.caller("acme", "root", "admin")
    await shelf.made(ann, "open", "/book/42:upload-start")
    assert (await ended(reader, await bulk(reader, "cancel")))["result"]["matched"] == 0
    assert (await ann.get("/status/open")).json()["status"] == "NotStarted"
    assert (await ended(root, await bulk(root, "cancel")))["result"]["done"] == 1
    assert (await ann.get("/status/open")).json()["status"] == "Canceled"


async def test_it_ends_with_its_key(desk: AccessDesk, shelf: Shelf, journal: Journal) -> None:
    """When the key is revoked: what is done stays done, nothing more is done, and the error says what to do."""
    ann, other = await desk.caller("acme", "ann", *ALL), await desk.caller("acme", "ann", *ALL)
    for number in range(6):
        await shelf.failed(ann, f"bad-{number}")
    answer = await bulk(ann, perSecond="1")
    await desk.revoke(ann)
    monitor = await ended(other, answer)
    assert (monitor["status"], monitor["error"]["code"]) == ("Failed", "Unauthenticated")
    assert "send the request again with others" in monitor["error"]["message"]
    assert (await other.get("/status/bad-5-retry-1")).status_code == 404
    again = await ended(other, await bulk(other))
    assert again["result"]["done"] == 6


async def test_a_caller_keeps_no_other_out(desk: AccessDesk, shelf: Shelf) -> None:
    """Whatever number of slow ones a caller begins, another caller's is done at once, and theirs one after another."""
    ann, bob = await desk.caller("acme", "ann", *ALL), await desk.caller("acme", "bob", *ALL)
    for number in range(30):
        await shelf.failed(ann, f"bad-{number}")
    await shelf.failed(bob, "one")
    slow = [await bulk(ann, perSecond="1") for _ in range(6)]
    monitor = await ended(bob, await bulk(bob))
    assert (monitor["status"], monitor["result"]["done"]) == ("Succeeded", 1)
    seen: list[dict[str, Any]] = []

    async def is_told() -> bool:
        seen[:] = [(await ann.get(f"/status/{answer.json()['id']}")).json() for answer in slow]
        return all("blockedBy" in one for one in seen[1:])

    await eventually(is_told, within=10)
    assert [one["status"] for one in seen] == ["Running", *5 * ["NotStarted"]]
    assert {one["blockedBy"]["reason"] for one in seen[1:]} == {"Concurrency"}


async def test_what_waits_for_a_limit_keeps_no_other_out(
    broker: Broker, link: Connection, journal: Journal, index: FilledIndex
) -> None:
    """Those of more callers than there are turns wait until these callers have fewer open operations, and say so."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, index=index.location, caller_open_operations=2) as desk:
        shelf = Shelf(desk, journal, index)
        names = [f"ann-{number}" for number in range(TURNS + 1)]
        stuck = [await desk.caller("acme", name, *ALL, is_awaited=False) for name in names]
        bob = await desk.caller("acme", "bob", *ALL)
        waiting: list[httpx.Response] = []

        async def is_begun(caller: CallerWithKey) -> bool:
            answer = await bulk(caller)  # refused while the end of the failed one is news
            waiting.extend([answer] if answer.status_code == 202 else [])
            return answer.status_code == 202

        for one in stuck:
            await desk.is_known(one)
            await shelf.failed(one, f"bad-of-{one.record.subject}")
            assert (await one.submit(headers={"Operation-Id": f"open-of-{one.record.subject}"})).status_code == 202
            await eventually(partial(is_begun, one), within=10)

        async def all_wait() -> bool:
            answers = [
                (await one.get(f"/status/{answer.json()['id']}")).json()
                for one, answer in zip(stuck, waiting, strict=True)
            ]
            return all("; waits: " in one.get("message", "") for one in answers)

        await eventually(all_wait, within=15)
        await shelf.failed(bob, "one")
        assert (await ended(bob, await bulk(bob)))["result"]["done"] == 1
        assert (await stuck[0].cancel(f"open-of-{names[0]}")).status_code == 200
        assert (await ended(stuck[0], waiting[0]))["result"]["done"] == 1
