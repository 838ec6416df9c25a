"""Who may send a signal, who may approve, and what the URL of a wait opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import EventData, Signaled, SignalWait, WaitBegun
from opstream_schemas.names import Kind
from tests.support.access.desk import AccessDesk, CallerWithKey, serving_with_keys
from tests.support.api.service import JSON, OperationStory, spec, started
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

SCHEMA = msgspec.Raw(b'{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}')
ACTION = "book:upload-start"


def waiting(*, approvers: int = 1, not_requester: bool = False, seconds: float = 3600) -> WaitBegun:
    """The event of a wait, as a runner records it."""
    wait = SignalWait(schema=SCHEMA, approvers=approvers, not_requester=not_requester)
    return WaitBegun(attempt=1, wait="approval", until=datetime.now(UTC) + timedelta(seconds=seconds), signal=wait)


@pytest.fixture
async def desk(broker: Broker, link: Connection) -> AsyncIterator[AccessDesk]:
    """A service that asks for API keys."""
    await announce_action(link, spec())
    await announce_action(link, spec(Kind("book", "other")))
    async with serving_with_keys(broker, link) as desk:
        yield desk


class Waits:
    """An operation of a caller that waits."""

    def __init__(self, desk: AccessDesk, journal: Journal, tenant: str, own_id: str) -> None:
        self.stored_id = desk.ids.stored_id(tenant, own_id)
        self.path = f"/status/{own_id}:signal/approval"
        self._journal = journal

    async def append(self, *datas: EventData) -> None:
        """Record events, as a runner does."""
        await (await OperationStory.of(self._journal, self.stored_id)).append(*datas)

    async def signals(self) -> list[Signaled]:
        """What is recorded."""
        return [data for one in await self._journal.events(self.stored_id) if isinstance(data := one.data, Signaled)]


async def waits(desk: AccessDesk, journal: Journal, owner: CallerWithKey, *datas: EventData) -> Waits:
    """Submit `one`, and let it wait."""
    assert (await owner.submit(headers={"Operation-Id": "one"})).status_code == 202
    found = Waits(desk, journal, owner.record.tenant, "one")
    await found.append(started(), *datas)
    return found


async def send(client: httpx.AsyncClient, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """POST a signal."""
    content = msgspec.json.encode({"ok": True} if body is None else body)
    return await client.post(path, content=content, headers={"Content-Type": JSON, **headers})


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the error's code."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_the_owner_sends_it(desk: AccessDesk, journal: Journal) -> None:
    """With the scope `signal`; who it is comes from its key, and stands in the event."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting())
    answer = await send(ann.client, one.path)
    assert (answer.status_code, answer.headers["Signal-State"]) == (200, "Delivered")
    assert answer.json()["id"] == "one"
    assert [(data.by, data.via) for data in await one.signals()] == [("ann", "")]


async def test_without_the_scope_nothing_is_sent(desk: AccessDesk, journal: Journal) -> None:
    """403, whether or not there is such an operation; also to one's own."""
    ann = await desk.caller("acme", "ann", "submit", "read", "cancel")
    one = await waits(desk, journal, ann, waiting())
    known, unknown = await send(ann.client, one.path), await send(ann.client, "/status/none:signal/approval")
    assert code(known) == (403, "Forbidden")
    assert known.content == unknown.content
    assert await one.signals() == []


async def test_others_of_the_tenant(desk: AccessDesk, journal: Journal) -> None:
    """An own scope names the actions whose operations may be signaled, of whichever caller."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting(approvers=2))
    unknown = await send(ann.client, "/status/none:signal/approval")
    for scopes in (("signal",), ("signal", "read"), ("signal:book:other",), ("signal:film:*",)):
        other = await desk.caller("acme", "eve", *scopes)
        answer = await send(other.client, one.path)
        assert (answer.status_code, answer.content) == (404, unknown.content), scopes
    reader = await desk.caller("acme", "rob", "signal", "read:all")
    refused = await send(reader.client, one.path)
    assert code(refused) == (403, "Forbidden")
    assert f"signal:{ACTION}" in refused.json()["error"]["message"]
    for subject, scope in (("bob", f"signal:{ACTION}"), ("cy", "signal:*:*")):
        approver = await desk.caller("acme", subject, scope)
        answer = await send(approver.client, one.path)
        # Who may not read learns that it was taken, and nothing else.
        assert (answer.status_code, answer.content, answer.headers["Signal-State"]) == (204, b"", "Delivered")
    assert [data.by for data in await one.signals()] == ["bob", "cy"]


async def test_another_tenant_finds_nothing(desk: AccessDesk, journal: Journal) -> None:
    """Whatever its scopes are, an administrator's included."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting())
    for tenant, scope in (("globex", "admin"), ("globex", "signal:*:*"), ("", "admin")):
        stranger = await desk.caller(tenant, "ann", scope)
        assert code(await send(stranger.client, one.path)) == (404, "OperationNotFound")
        stored = one.path.replace("/one", f"/{one.stored_id}")
        assert code(await send(stranger.client, stored)) == (404, "OperationNotFound")
    assert await one.signals() == []


async def test_two_approvers(desk: AccessDesk, journal: Journal) -> None:
    """Two keys of one caller are one approver; the requester is none; two others are two."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting(approvers=2, not_requester=True))
    assert code(await send(ann.client, one.path)) == (403, "SenderNotAllowed")
    admin = await desk.caller("acme", "ann", "admin")
    assert code(await send(admin.client, one.path)) == (403, "SenderNotAllowed")
    bob, again = [await desk.caller("acme", "bob", f"signal:{ACTION}") for _ in range(2)]
    assert (await send(bob.client, one.path)).status_code == 204
    assert code(await send(again.client, one.path)) == (409, "SignalRepeated")
    shown = (await ann.get("/status/one")).json()["blockedBy"]["signal"]
    assert (shown["approvers"], shown["approvals"], shown["notRequester"]) == (2, 1, True)
    cy = await desk.caller("acme", "cy", f"signal:{ACTION}")
    assert (await send(cy.client, one.path)).status_code == 204
    assert [data.by for data in await one.signals()] == ["bob", "cy"]


async def test_a_kept_approval_of_the_requester_does_not_count(desk: AccessDesk, journal: Journal) -> None:
    """What the requester has sent before the wait completes nothing, even if no runner has refused it."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202
    one = Waits(desk, journal, "acme", "one")
    assert (await send(ann.client, one.path)).headers["Signal-State"] == "Kept"
    await one.append(started(), waiting(not_requester=True))
    assert (await ann.get("/status/one")).json()["waitingFor"] == "Signal"
    bob = await desk.caller("acme", "bob", "signal:*:*")
    assert (await send(bob.client, one.path)).status_code == 204
    assert (await ann.get("/status/one")).json().get("waitingFor") != "Signal"


async def url_of(reader: CallerWithKey) -> str:
    """The path and query of the wait's URL."""
    url = (await reader.get("/status/one")).json()["blockedBy"]["signal"]["url"]
    return httpx.URL(url).raw_path.decode()


async def test_a_third_party_sends_it_without_a_key(desk: AccessDesk, journal: Journal) -> None:
    """Once: the same again is the same answer, for a sender that got none; anything else is refused."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting())
    url = await url_of(ann)
    assert url.startswith(f"{one.path}?token=")
    assert url == await url_of(ann)
    provider = desk.api.client
    assert code(await send(provider, url, {"ok": "x"})) == (400, "InvalidInput")
    answer = await send(provider, url)
    assert (answer.status_code, answer.content, answer.headers["Signal-State"]) == (204, b"", "Delivered")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert [(data.by, data.via) for data in await one.signals()] == [("", "url")]
    for headers in ({}, {"Repeatability-Request-ID": "r", "Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT"}):
        assert (await send(provider, url, **headers)).status_code == 204
        assert code(await send(provider, url, {"ok": False}, **headers)) == (400, "RequestIdReused")
    await one.append(started(2, ticket=9))
    assert (await send(provider, url)).status_code == 204
    assert len(await one.signals()) == 1


async def test_the_url_opens_nothing_else(desk: AccessDesk, journal: Journal) -> None:
    """No status, no history, no cancel, no other signal, no other operation, no submit."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal", "cancel")
    one = await waits(desk, journal, ann, waiting())
    query = (await url_of(ann)).partition("?")[2]
    await ann.submit(headers={"Operation-Id": "two"})
    browser = desk.api.client
    unknown = await send(browser, "/status/none:signal/approval?token=x")
    assert code(unknown) == (404, "OperationNotFound")
    paths = ("/status/one", "/status/one/events", "/status/one:cancel", "/status/one:signal/other")
    for path in (*paths, "/status/two:signal/approval", "/status/one:signal/approval/x"):
        for method in ("GET", "POST"):
            answer = await browser.request(method, f"{path}?{query}", headers={"Content-Type": JSON})
            assert (answer.status_code, answer.content) == (404, unknown.content), (method, path)
    assert (await browser.get(f"{one.path}?{query}")).status_code == 405
    assert (await browser.post(f"/book/42:upload-start?{query}")).status_code == 401
    assert await one.signals() == []


async def test_a_forged_url_is_an_unknown_operation(desk: AccessDesk, journal: Journal) -> None:
    """Cut, changed, empty, twice, a status token: the same bytes as for an operation that does not exist."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting())
    url = await url_of(ann)
    given = await ann.submit("/book/42:other", headers={"Operation-Id": "two", "Prefer": "status-token"})
    token = httpx.URL(given.headers["Operation-Location"]).query.decode()
    browser = desk.api.client
    unknown = await send(browser, "/status/none:signal/approval?token=x")
    for forged in (url[:-1], f"{url}x", f"{one.path}?token=", f"{url}&{url.partition('?')[2]}", f"{one.path}?{token}"):
        answer = await send(browser, forged)
        assert (answer.status_code, answer.content) == (404, unknown.content), forged
    status = await browser.get(f"/status/two?{url.partition('?')[2]}")
    assert (status.status_code, status.content) == (404, unknown.content)
    assert await one.signals() == []


async def test_the_url_ends_with_its_key(desk: AccessDesk, journal: Journal) -> None:
    """A key that is revoked takes the URLs with it that its caller has read; those of others stay."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    bob = await desk.caller("acme", "bob", "read:all", "signal:*:*")
    one = await waits(desk, journal, ann, waiting())
    mine, his = await url_of(ann), await url_of(bob)
    assert mine != his
    await desk.revoke(ann)
    browser = desk.api.client
    while (await send(browser, mine, {"ok": "x"})).status_code != 404:
        pass
    assert (await send(browser, his)).status_code == 204
    assert len(await one.signals()) == 1


async def test_the_url_ends_with_the_wait(desk: AccessDesk, journal: Journal) -> None:
    """After its time nothing is sent by it, also if no attempt has begun yet."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    one = await waits(desk, journal, ann, waiting(seconds=0.1))
    url = await url_of(ann)
    browser = desk.api.client
    while (await send(browser, url, {"ok": "x"})).status_code != 404:
        pass
    assert code(await send(browser, url)) == (404, "OperationNotFound")
    assert await one.signals() == []


async def test_who_sees_the_url(desk: AccessDesk, journal: Journal) -> None:
    """Only who may send the signal; and of a wait that asks who sends it nobody sees one with a token."""
    ann = await desk.caller("acme", "ann", "submit", "read", "signal")
    rob = await desk.caller("acme", "rob", "read:all")
    one = await waits(desk, journal, ann, waiting(not_requester=True))
    assert "url" not in (await rob.get("/status/one")).json()["blockedBy"]["signal"]
    assert await url_of(ann) == one.path
    answer = await send(desk.api.client, one.path)
    assert code(answer) == (401, "Unauthenticated")
