"""Who may do an operation again, whose the follow-up is, and who learns of it."""

from __future__ import annotations

import httpx
import pytest

from opstream_journal import Connection, Journal
from opstream_schemas.events import Failed, Requested
from opstream_schemas.subjects import ACCESS_LOG_STREAM
from tests.support.access.desk import AccessDesk, CallerWithKey
from tests.support.api.service import OperationStory, failure, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ALL = ("submit", "read", "cancel")


async def failed(desk: AccessDesk, journal: Journal, caller: CallerWithKey, own_id: str = "one") -> str:
    """A failed operation of a caller; return its stored id."""
    assert (await caller.submit(headers={"Operation-Id": own_id})).status_code == 202
    stored = desk.ids.stored_id(caller.record.tenant, own_id)
    await (await OperationStory.of(journal, stored)).append(started(), Failed(error=failure()))
    return stored


async def retry(caller: CallerWithKey, own_id: str = "one") -> httpx.Response:
    """POST a retry."""
    return await caller.client.post(f"/status/{own_id}:retry")


async def requested(desk: AccessDesk, journal: Journal, tenant: str, own_id: str) -> Requested:
    """The request of an operation."""
    data = (await journal.events(desk.ids.stored_id(tenant, own_id)))[0].data
    assert isinstance(data, Requested)
    return data


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_the_follow_up_is_its_caller_s(desk: AccessDesk, journal: Journal) -> None:
    """Under its own id and tenant, stored under another one, and read by it alone."""
    ann = await desk.caller("acme", "ann", *ALL)
    bob = await desk.caller("acme", "bob", *ALL)
    await failed(desk, journal, ann)
    answer = await retry(ann)
    assert (answer.status_code, answer.json()["id"], answer.json()["retryOf"]) == (202, "one-retry-1", "one")
    follow_up = await requested(desk, journal, "acme", "one-retry-1")
    assert (follow_up.tenant, follow_up.caller, follow_up.own_id) == ("acme", "ann", "one-retry-1")
    assert (await ann.get("/status/one")).json()["retriedBy"] == "one-retry-1"
    assert (await bob.get("/status/one-retry-1")).status_code == 404


async def test_a_foreign_operation_is_unknown(desk: AccessDesk, journal: Journal, link: Connection) -> None:
    """To another subject and to another tenant's administrator, exactly as one that does not exist."""
    ann = await desk.caller("acme", "ann", *ALL)
    await failed(desk, journal, ann)
    before = (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages
    for other in (await desk.caller("acme", "bob", *ALL), await desk.caller("evil", "ann", "admin")):
        unknown = await retry(other, "none")
        foreign = await retry(other)
        assert code(foreign) == (404, "OperationNotFound")
        assert foreign.content == unknown.content
    assert (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages == before


async def test_two_tenants_have_two_follow_ups(desk: AccessDesk, journal: Journal) -> None:
    """Of operations with the same id of their own."""
    ann, eve = [await desk.caller(tenant, "ann", *ALL) for tenant in ("acme", "evil")]
    for caller in (ann, eve):
        await failed(desk, journal, caller)
        assert (await retry(caller)).status_code == 202
    one, other = [await requested(desk, journal, tenant, "one-retry-1") for tenant in ("acme", "evil")]
    assert (one.tenant, other.tenant) == ("acme", "evil")


@pytest.mark.parametrize("scopes", [("read",), ("read", "submit:shelf:*"), ("submit",), ("read", "cancel", "run")])
async def test_it_takes_to_read_and_to_submit(
    desk: AccessDesk, journal: Journal, link: Connection, scopes: tuple[str, ...]
) -> None:
    """With one of the scopes alone, or with that for another action, it is forbidden, and nothing is recorded."""
    ann = await desk.caller("acme", "ann", *ALL)
    await failed(desk, journal, ann)
    before = (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages
    assert code(await retry(await desk.caller("acme", "ann", *scopes))) == (403, "Forbidden")
    assert (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages == before


async def test_another_caller_s_operation(desk: AccessDesk, journal: Journal, link: Connection) -> None:
    """Who reads all does it again in its own name, which the access log records. Its first caller learns that it was
    done again, and not by which operation."""
    ann = await desk.caller("acme", "ann", *ALL)
    root = await desk.caller("acme", "root", "read:all", "submit")
    stored = await failed(desk, journal, ann)
    assert (await retry(root)).status_code == 202
    assert (await requested(desk, journal, "acme", "one-retry-1")).caller == "root"
    assert (await root.get("/status/one")).json()["retriedBy"] == "one-retry-1"
    assert "retriedBy" not in (await ann.get("/status/one")).json()
    refused = await retry(ann)
    assert code(refused) == (409, "OperationNotRetriable")
    assert "one-retry-1" not in refused.text

    async def is_recorded() -> bool:
        return (await link.nc.jetstream().stream_info(ACCESS_LOG_STREAM)).state.messages >= 1

    await eventually(is_recorded, within=5)
    record = (await link.nc.jetstream().get_last_msg(ACCESS_LOG_STREAM, "access_log.act.retried")).data
    assert record is not None
    assert b'"by":"root"' in record
    assert stored.encode() in record


async def test_a_status_token_does_nothing_again(desk: AccessDesk, journal: Journal) -> None:
    """It opens a status, and that does not name what follows up on it."""
    ann = await desk.caller("acme", "ann", *ALL)
    made = await ann.submit(headers={"Operation-Id": "one", "Prefer": "status-token=600"})
    url = made.headers["Operation-Location"]
    story = await OperationStory.of(journal, desk.ids.stored_id("acme", "one"))
    await story.append(started(), Failed(error=failure()))
    refused = await desk.api.client.post(url.replace("?", ":retry?"))
    assert code(refused) == (403, "Forbidden")
    await retry(ann)
    shown = await desk.api.client.get(url)
    assert (shown.status_code, shown.json()["status"]) == (200, "Failed")
    assert "retriedBy" not in shown.json()
