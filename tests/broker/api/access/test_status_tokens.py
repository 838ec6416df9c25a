"""A URL that opens one operation: who gets it, what it opens, and what ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest

from opstream_api.http.callback_header import CallbackPolicy
from opstream_journal import Connection, announce_action
from tests.support.access.desk import AccessDesk, CallerWithKey, serving_with_keys
from tests.support.api.service import serving, spec
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

APP: Final = "https://app.example"
HOOKS: Final = CallbackPolicy.parse(["hooks.example.org"])


@pytest.fixture
async def desk(broker: Broker, link: Connection) -> AsyncIterator[AccessDesk]:
    """A service that asks for API keys, and answers the pages of one site."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, cors_origins=(APP,), callbacks=HOOKS) as desk:
        yield desk


async def given(caller: CallerWithKey, operation_id: str = "one", prefer: str = "status-token") -> httpx.Response:
    """Submit with the wish for a status token."""
    return await caller.submit(headers={"Operation-Id": operation_id, "Prefer": prefer})


def target(answer: httpx.Response) -> str:
    """The path and query of `Operation-Location`."""
    return httpx.URL(answer.headers["Operation-Location"]).raw_path.decode()


async def test_a_browser_reads_one_operation_without_a_key(desk: AccessDesk) -> None:
    """Its status, as its own answers say; the page may be of another site."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    answer = await given(ann)
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "status-token=3600")
    url = target(answer)
    assert url.startswith("/status/one?token=")
    browser = desk.api.client
    seen = await browser.get(url, headers={"Origin": APP})
    assert (seen.status_code, seen.json()["id"]) == (200, "one")
    assert seen.headers["Referrer-Policy"] == "no-referrer"
    assert seen.headers["Cache-Control"] == "private, no-cache"
    assert seen.headers["Access-Control-Allow-Origin"] == APP
    again = await browser.get(url, headers={"If-None-Match": seen.headers["ETag"]})
    assert (again.status_code, again.headers["Cache-Control"]) == (304, "private, no-cache")
    assert (await browser.head(url)).status_code == 200
    assert (await browser.get(f"{url}&api-version=1")).status_code == 200
    assert (await browser.get(f"{url}&tokens=1")).status_code == 400


async def test_it_does_not_open_the_history(desk: AccessDesk) -> None:
    """That has the submit's callback, often with a secret, the input and the caller: 404, as an unknown operation."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    headers = {
        "Operation-Id": "one",
        "Prefer": "status-token",
        "Operation-Callback": "https://hooks.example.org/x?key=s3cret",
    }
    url = target(await ann.submit(headers=headers))
    assert b"s3cret" in (await ann.get("/status/one/events")).content
    browser = desk.api.client
    unknown = await browser.get(url.replace("/one", "/none"))
    for path in ("/events?", ":x/events?"):
        for accept in ("application/json", "text/event-stream"):
            answer = await browser.get(url.replace("?", path), headers={"Accept": accept})
            assert (answer.status_code, answer.content) == (404, unknown.content), path
    for path in ("?", "%2Fevents?", "/events/?"):
        assert b"s3cret" not in (await browser.get(url.replace("?", path))).content


async def test_a_client_polls_the_same_url_with_its_key(desk: AccessDesk) -> None:
    """A poller of Azure's pattern sends its credentials to `Operation-Location` as it is; they count, not the token."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    url = target(await given(ann))
    assert (await ann.get(url)).status_code == 200
    assert (await ann.get("/status/one?token=forged")).status_code == 200
    bob = await desk.caller("acme", "bob", "submit", "read")
    assert (await bob.get(url)).status_code == 404


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("status-token=60", "status-token=60"),
        ('respond-async, status-token="60"', "status-token=60"),
        ("Status-Token; x=1", "status-token=3600"),
        ("status-token=999999", "status-token=86400"),
        ("wait=1", None),
        ("status-token=0", None),
        ("status-token=-1", None),
        ("status-token=abc", None),
        ("xstatus-token", None),
        ('x="a, status-token"', None),
    ],
)
async def test_how_long_it_lasts(desk: AccessDesk, prefer: str, applied: str | None) -> None:
    """As its request says, a day at most. What is malformed is ignored (RFC 7240)."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    answer = await given(ann, prefer=prefer)
    assert answer.status_code == 202
    assert answer.headers.get("Preference-Applied") == applied
    assert ("?token=" in target(answer)) == (applied is not None)


async def test_it_opens_nothing_else(desk: AccessDesk, link: Connection) -> None:
    """No other operation, no submit, no document; a cancel is 403."""
    ann = await desk.caller("acme", "ann", "submit", "read", "cancel")
    url = target(await given(ann, "one"))
    await given(ann, "two")
    query = url.partition("?")[2]
    browser = desk.api.client
    unknown = await browser.get(url.replace("/one", "/none"))
    for path in ("/status/two", "/status/two/events", "/status/on", "/status/two:cancel"):
        method = "POST" if path.endswith("cancel") else "GET"
        answer = await browser.request(method, f"{path}?{query}")
        assert (answer.status_code, answer.content) == (404, unknown.content), path
    canceled = await browser.post(url.replace("?", ":cancel?"))
    assert (canceled.status_code, canceled.headers["x-ms-error-code"]) == (403, "Forbidden")
    for method, path in (("POST", "/book/42:upload-start"), ("GET", "/openapi.json"), ("GET", "/docs")):
        assert (await browser.request(method, f"{path}?{query}")).status_code == 401
    assert (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages == 2


async def test_a_token_that_is_none_is_an_unknown_operation(desk: AccessDesk) -> None:
    """Forged, cut, empty, twice: the same bytes as for an operation that does not exist."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    url = target(await given(ann))
    path, _, query = url.partition("?")
    token = query.removeprefix("token=")
    unknown = await ann.get("/status/none")
    assert unknown.status_code == 404
    for wrong in (
        token[:-1],
        token + "A",
        "A" + token[1:],
        "",
        "x",
        "x.y",
        f"{token}&token={token}",
        f"&token={token[:9]}",
    ):
        answer = await desk.api.client.get(f"{path}?token={wrong}")
        assert (answer.status_code, answer.content) == (404, unknown.content), wrong
        assert answer.headers["x-ms-error-code"] == unknown.headers["x-ms-error-code"]
        assert "WWW-Authenticate" not in answer.headers
    assert (await desk.api.client.get(path)).status_code == 401


async def test_it_ends_with_the_key_that_asked(desk: AccessDesk) -> None:
    """Within a second of its revocation, waits as well; that of another key stays."""
    ann, same = await desk.caller("acme", "ann", "submit", "read"), await desk.caller("acme", "ann", "submit", "read")
    url, other = target(await given(ann)), target(await given(same))
    await desk.revoke(ann)

    async def is_gone() -> bool:
        return (await desk.api.client.get(url)).status_code == 404

    await eventually(is_gone, within=1)
    assert (await desk.api.client.get(other)).status_code == 200
    await eventually(lambda: not len(desk.api.watchers))
    waiting = asyncio.create_task(desk.api.client.get(other, headers={"Prefer": "wait=30"}))
    await eventually(lambda: len(desk.api.watchers))
    await desk.revoke(same)
    assert (await waiting).status_code == 404


async def test_who_may_not_read_gets_none(desk: AccessDesk) -> None:
    """A caller that may only submit; the submit is accepted all the same."""
    ann = await desk.caller("acme", "ann", "submit")
    answer = await given(ann)
    assert (answer.status_code, "Preference-Applied" in answer.headers) == (202, False)
    assert "?" not in target(answer)


async def test_a_service_without_credentials_gives_none(broker: Broker, link: Connection) -> None:
    """There the wish is ignored, and the parameter is unknown, as before."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        answer = await api.submit(headers={"Operation-Id": "one", "Prefer": "status-token"})
        assert (answer.status_code, "Preference-Applied" in answer.headers) == (202, False)
        assert answer.headers["Operation-Location"].endswith("/status/one")
        refused = await api.client.get("/status/one?token=x")
        assert (refused.status_code, refused.json()["error"]["target"]) == (400, "token")


async def test_no_log_has_a_token(desk: AccessDesk, caplog: pytest.LogCaptureFixture) -> None:
    """At the lowest level, for a request that is answered, one that is refused, and one that fails."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    url = target(await given(ann))
    token = url.partition("token=")[2]
    with caplog.at_level(logging.DEBUG):
        for path in (url, url + "x", f"{url}&what=1", url.replace("/one", "/two"), url.replace("?", "/events?")):
            await desk.api.client.get(path)
    served = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert [record.getMessage() for record in served if token in record.getMessage()] == []
