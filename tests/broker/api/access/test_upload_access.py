"""Attacks on uploads: a place and a claim are worth something to one caller, for one file of one operation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest

from opstream_journal import Connection, announce_action
from tests.support.access.desk import AccessDesk, CallerWithKey, serving_with_keys
from tests.support.api.service import JSON, spec
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

FILE = b"what only its owner may submit"


@pytest.fixture
async def desk(broker: Broker, link: Connection) -> AsyncIterator[AccessDesk]:
    """A service that asks for API keys."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link) as desk:
        yield desk


async def place(caller: CallerWithKey, operation_id: str = "one") -> httpx.Response:
    """Ask for a place for `a.txt`."""
    return await caller.client.post("/payloads", json={"name": "a.txt"}, headers={"Operation-Id": operation_id})


async def claim(caller: CallerWithKey, operation_id: str = "one") -> str:
    """Upload a file with the caller's own key, and return its claim."""
    sent = await caller.client.put(f"/payloads/{operation_id}/a.txt", content=FILE)
    assert sent.status_code == 201, sent.text
    found: str = sent.json()["claim"]
    return found


async def submit(caller: CallerWithKey, upload: str, operation_id: str = "one") -> httpx.Response:
    """Submit with a claim."""
    return await caller.submit(headers={"Operation-Id": operation_id, "Operation-Upload": upload})


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the error's code."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_the_url_is_enough_for_the_upload(desk: AccessDesk) -> None:
    """Who has it needs no key, and uploads for the caller that asked; the URL opens nothing else."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    given = await place(ann)
    href = given.json()["href"]
    assert given.headers["Cache-Control"] == "no-store"
    assert datetime.fromisoformat(given.json()["expiresAt"]).tzinfo is not None
    async with httpx.AsyncClient(base_url=desk.api.url, trust_env=False) as anybody:
        sent = await anybody.put(href, content=FILE)
        assert sent.status_code == 201, sent.text
        token = urlsplit(href).query
        assert code(await anybody.put(urlsplit(href).path, content=FILE)) == (401, "Unauthenticated")
        for path in ("/payloads/two/a.txt", "/payloads/one/b.txt"):
            assert code(await anybody.put(f"{path}?{token}", content=FILE)) == (404, "PayloadNotFound")
        assert code(await anybody.put(f"{href}x", content=FILE)) == (404, "PayloadNotFound")
        assert code(await anybody.put(f"{href}&{token}", content=FILE)) == (404, "PayloadNotFound")
        for method, other in (
            ("GET", "/status/one"),
            ("POST", "/status/one:cancel"),
            ("POST", "/book/42:upload-start"),
        ):
            answer = await anybody.request(method, f"{other}?{token}", headers={"Content-Type": JSON})
            assert answer.status_code in {401, 404}, other
    assert (await submit(ann, sent.json()["claim"])).status_code == 202


async def test_another_caller_has_no_use_for_a_claim(desk: AccessDesk) -> None:
    """Of the same tenant, of another, or an administrator: it is for its owner, under its operation's id."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    mine = await claim(ann)
    for tenant, subject, scope in (("acme", "bob", "submit"), ("globex", "ann", "submit"), ("", "root", "admin")):
        other = await desk.caller(tenant, subject, scope)
        assert code(await submit(other, mine)) == (400, "InvalidHeader"), (tenant, subject)
    assert code(await submit(ann, mine, "two")) == (400, "InvalidHeader")
    again = await desk.caller("acme", "ann", "submit:book:*")
    assert (await submit(again, mine)).status_code == 202  # a rotated key keeps the owner


async def test_without_a_scope_to_submit(desk: AccessDesk) -> None:
    """403, whether or not there is such an operation."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202
    reader = await desk.caller("acme", "rob", "read:all", "cancel", "signal")
    for operation_id in ("one", "none"):
        assert code(await place(reader, operation_id)) == (403, "Forbidden")
        sent = await reader.client.put(f"/payloads/{operation_id}/a.txt", content=FILE)
        assert code(sent) == (403, "Forbidden")


async def test_a_place_ends_with_its_key(desk: AccessDesk) -> None:
    """Once the key is revoked, or has expired, that asked for it."""
    ann = await desk.caller("acme", "ann", "submit", lifetime=600)
    given = (await place(ann)).json()
    left = datetime.fromisoformat(given["expiresAt"]).timestamp() - datetime.now(UTC).timestamp()
    assert left <= 600
    await desk.revoke(ann)

    async def is_refused() -> bool:
        return (await ann.get("/openapi.json")).status_code == 401

    await eventually(is_refused, within=5)
    async with httpx.AsyncClient(base_url=desk.api.url, trust_env=False) as anybody:
        assert code(await anybody.put(given["href"], content=FILE)) == (404, "PayloadNotFound")


async def test_who_reads_a_file(desk: AccessDesk) -> None:
    """Nobody before the submit, then the callers that may read the status; another tenant nothing."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    mine = await claim(ann)
    assert code(await ann.get("/payloads/one/a.txt")) == (405, "MethodNotAllowed")
    assert (await submit(ann, mine)).status_code == 202
    (file,) = (await ann.get("/status/one")).json()["uploads"]
    assert (await ann.get(file["href"])).content == FILE
    reader = await desk.caller("acme", "rob", "read:all")
    assert (await reader.get(file["href"])).content == FILE
    for tenant, scope in (("acme", "read"), ("globex", "admin")):
        stranger = await desk.caller(tenant, "eve", scope)
        assert code(await stranger.get(file["href"])) == (404, "OperationNotFound")
