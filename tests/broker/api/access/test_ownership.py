"""Ownership: which operations a caller sees, and that it can't tell a foreign one from none."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas import subjects
from opstream_schemas.events import Requested, Succeeded
from opstream_schemas.operation.resource_lock import Claim, LockOwned
from tests.support.access.desk import AccessDesk, CallerWithKey
from tests.support.api.service import OperationStory, spec, started

pytestmark = pytest.mark.broker

ALL = ("submit", "read", "cancel")


def shown(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All of an answer that may differ from another one to the same question."""
    kept = [pair for pair in answer.headers.multi_items() if pair[0] not in {"date", "x-ms-request-id"}]
    return answer.status_code, answer.content, kept


async def questions(caller: CallerWithKey, operation_id: str) -> dict[str, Any]:
    """Each way to ask for an operation, with its answer."""
    path = f"/status/{operation_id}"
    return {
        "status": shown(await caller.get(path)),
        "tagged": shown(await caller.get(path, If_None_Match="*")),
        "at once": shown(await caller.get(path, Prefer="wait=0")),
        "waited for": shown(await caller.get(path, Prefer="wait=60")),
        "history": shown(await caller.get(f"{path}/events")),
        "stream": shown(await caller.get(f"{path}/events", Accept="text/event-stream")),
        "resumed": shown(await caller.get(f"{path}/events", Accept="text/event-stream", Last_Event_ID="9")),
        "cancel": shown(await caller.cancel(operation_id)),
    }


async def test_a_foreign_operation_is_answered_as_none(desk: AccessDesk, journal: Journal, link: Connection) -> None:
    """By each way to ask: open and ended, of another subject, of another tenant, and by its stored id."""
    ann = await desk.caller("acme", "ann", *ALL)
    bob = await desk.caller("acme", "bob", *ALL)
    eve = await desk.caller("evil", "ann", *ALL, "read:all")
    ops = await desk.caller("", "ops", *ALL, "read:all")
    for operation_id in ("open-1", "ended-1"):
        assert (await ann.submit(headers={"Operation-Id": operation_id})).status_code == 202
    stored = {one: desk.ids.stored_id("acme", one) for one in ("open-1", "ended-1")}
    story = await OperationStory.of(journal, stored["ended-1"])
    await story.append(started(), Succeeded(result=msgspec.Raw(b"{}")))
    before = len(await journal.events(stored["open-1"]))
    for caller in (bob, eve, ops):
        unknown = await questions(caller, "no-such-1")
        assert {answer[0] for answer in unknown.values()} == {404}
        for operation_id in (*stored, *stored.values()):
            assert await questions(caller, operation_id) == unknown
    assert len(await journal.events(stored["open-1"])) == before
    assert (await ann.get("/status/ended-1")).json()["status"] == "Succeeded"


async def test_read_all_sees_its_tenant_and_cancels_only_its_own(desk: AccessDesk) -> None:
    """Canceling another caller's operation needs `admin`, which has all rights in its tenant and none elsewhere."""
    ann = await desk.caller("acme", "ann", *ALL)
    auditor = await desk.caller("acme", "bob", "read:all", "cancel")
    admin = await desk.caller("acme", "root", "admin")
    foreign = await desk.caller("other", "root", "admin")
    await ann.submit(headers={"Operation-Id": "one"})
    assert (await auditor.get("/status/one")).json()["id"] == "one"
    assert (await auditor.get("/status/one/events")).status_code == 200
    refused = await auditor.cancel("one")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "Forbidden")
    assert (await foreign.cancel("one")).status_code == 404
    assert (await ann.get("/status/one")).json()["status"] == "NotStarted"
    assert (await admin.cancel("one")).json()["status"] == "Canceled"


async def test_each_right_needs_its_scope(desk: AccessDesk) -> None:
    """Of the caller's own operation, too; the answer is the same for one that does not exist."""
    owner = await desk.caller("acme", "ann", *ALL)
    submits = await desk.caller("acme", "ann", "submit")
    reads = await desk.caller("acme", "ann", "read")
    await owner.submit(headers={"Operation-Id": "one"})
    for operation_id in ("one", "none"):
        for answer, scope in (
            (await submits.get(f"/status/{operation_id}"), "read"),
            (await submits.get(f"/status/{operation_id}/events"), "read"),
            (await submits.cancel(operation_id), "cancel"),
            (await reads.cancel(operation_id), "cancel"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")
            assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]
    assert (await reads.get("/status/one")).status_code == 200


async def test_a_rotated_key_keeps_what_is_owned(desk: AccessDesk) -> None:
    """Owner is tenant and subject, not the key."""
    before = await desk.caller("acme", "ann", *ALL)
    await before.submit(headers={"Operation-Id": "one"})
    after = await desk.caller("acme", "ann", *ALL)
    await desk.revoke(before)
    assert (await after.get("/status/one")).status_code == 200
    assert (await after.submit(headers={"Operation-Id": "one"})).status_code == 202


async def test_the_same_id_of_two_tenants_is_two_operations(desk: AccessDesk, journal: Journal) -> None:
    """Their ids can't meet, and each sees its own; within a tenant the id of another caller is taken."""
    ann, bob = await desk.caller("acme", "ann", *ALL), await desk.caller("other", "ann", *ALL)
    colleague = await desk.caller("acme", "joe", *ALL)
    first = await ann.submit("/book/1:upload-start", headers={"Operation-Id": "one"})
    second = await bob.submit("/book/2:upload-start", headers={"Operation-Id": "one"})
    assert (first.json()["resourceId"], second.json()["resourceId"]) == ("1", "2")
    assert (await ann.get("/status/one")).json()["resourceId"] == "1"
    assert (await bob.get("/status/one")).json()["resourceId"] == "2"
    assert await journal.events("one") == []
    taken = await colleague.submit("/book/1:upload-start", headers={"Operation-Id": "one"})
    assert taken.json()["error"]["code"] == "OperationIdReused"


async def test_a_client_sees_its_own_id_everywhere(desk: AccessDesk, journal: Journal) -> None:
    """In the status, the headers, errors and events; the stored one is only in a header of histories, whose hash chain
    is computed with it. Neither is recorded twice.
    """
    ann = await desk.caller("acme", "ann", *ALL)
    stored = desk.ids.stored_id("acme", "one")
    answers = [
        await ann.submit(headers={"Operation-Id": "one"}),
        await ann.submit(headers={"Operation-Id": "one"}),
        await ann.submit("/book/7:upload-start", headers={"Operation-Id": "one"}),
        await ann.get("/status/one"),
        await ann.get("/status/one/events"),
        await ann.cancel("one"),
        await ann.get("/status/one/events", Accept="text/event-stream"),
        await ann.get("/status/one"),
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 400, 200, 200, 200, 200, 200]
    assert answers[0].headers["Operation-Id"] == "one"
    assert answers[0].headers["Operation-Location"].endswith("/status/one")
    for answer in answers:
        assert stored not in answer.text
        is_history = answer.request.url.path.endswith("/events")
        assert answer.headers.get("Operation-Stored-Id") == (stored if is_history else None)
        assert str(answer.headers).count(stored) == is_history
    assert [event["subject"] for event in answers[4].json()["value"]] == ["one"]
    assert answers[6].text.count('"subject":"one"') == 2
    requested = (await journal.events(stored))[0].data
    assert isinstance(requested, Requested)
    assert (requested.tenant, requested.caller, requested.own_id) == ("acme", "ann", "one")
    assert len(await journal.events(stored)) == 2


async def test_a_finished_operation_is_named_by_its_own_id(desk: AccessDesk, journal: Journal) -> None:
    """The error of a late cancel has no stored id."""
    ann = await desk.caller("acme", "ann", *ALL)
    await ann.submit(headers={"Operation-Id": "one"})
    story = await OperationStory.of(journal, desk.ids.stored_id("acme", "one"))
    await story.append(started(), Succeeded(result=msgspec.Raw(b"{}")))
    refused = (await ann.cancel("one")).json()["error"]
    assert refused["code"] == "OperationFinished"
    assert "operation one is" in refused["message"]


async def test_resources_of_two_tenants_do_not_exclude_each_other(
    desk: AccessDesk, journal: Journal, link: Connection
) -> None:
    """Their locks have different keys; within a tenant, and without one, they are as ever."""
    await announce_action(link, spec(exclusive="resource"))
    keys = set()
    for tenant in ("acme", "other", ""):
        caller = await desk.caller(tenant, "ann", *ALL)
        await caller.submit(headers={"Operation-Id": "one"})
        requested = (await journal.events(desk.ids.stored_id(tenant, "one")))[0].data
        assert isinstance(requested, Requested)
        keys.add(requested.hold)
    assert len(keys) == 3
    assert subjects.lock_key("action.book.upload-start", "42") in keys


@pytest.mark.parametrize("holder", ["ann", "bob"])
async def test_a_busy_resource_names_no_owner(
    desk: AccessDesk, journal: Journal, link: Connection, holder: str
) -> None:
    """The refusal of an action that rejects has neither the owner's id nor the stored one, whether the owner is the
    caller itself or another one of its tenant. Another tenant is not refused at all."""
    await announce_action(link, spec(exclusive="resource", on_conflict="reject"))
    locks = ResourceLocks(link, journal)
    await locks.start()
    owner, ann, eve = [await desk.caller(*one, *ALL) for one in (("acme", holder), ("acme", "ann"), ("evil", "ann"))]
    assert (await owner.submit(headers={"Operation-Id": "first-1"})).status_code == 202
    stored = desk.ids.stored_id("acme", "first-1")
    operation = (await OperationStory.of(journal, stored)).operation
    claim = Claim(operation_id=stored, sequence=operation.stream_sequence, kind=str(operation.kind))
    assert isinstance(await locks.acquire(operation.hold, claim), LockOwned)
    refused = await ann.submit(headers={"Operation-Id": "second-1"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "ResourceBusy")
    assert refused.json()["error"]["message"].startswith("another operation holds book 42")
    for hidden in ("first-1", stored, desk.ids.stored_id("acme", "second-1"), "action.book"):
        assert hidden not in refused.text + str(refused.headers)
    assert (await eve.submit(headers={"Operation-Id": "first-1"})).status_code == 202


async def test_a_repeatable_request_is_one_operation(desk: AccessDesk) -> None:
    """OASIS Repeatable Requests: the pair of headers names the operation of this tenant."""
    ann, eve = await desk.caller("acme", "ann", *ALL), await desk.caller("evil", "ann", *ALL)
    pair = {"Repeatability-Request-ID": "r-1", "Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT"}
    first, again, other = [await one.submit(headers=pair) for one in (ann, ann, eve)]
    assert first.json()["id"] == again.json()["id"] == other.json()["id"]
    assert first.json()["createdAt"] == again.json()["createdAt"] != other.json()["createdAt"]
    assert (await ann.get(f"/status/{first.json()['id']}")).status_code == 200


async def test_a_generated_id_can_be_polled(desk: AccessDesk) -> None:
    """The service makes the client's own id, and derives the stored one from it."""
    ann = await desk.caller("acme", "ann", *ALL)
    made = await ann.submit()
    operation_id = made.headers["Operation-Id"]
    assert made.json()["id"] == operation_id != desk.ids.stored_id("acme", operation_id)
    assert (await ann.get(f"/status/{operation_id}")).status_code == 200
