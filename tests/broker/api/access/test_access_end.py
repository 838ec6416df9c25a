"""Requests that wait or stream end when the key that allowed them does."""

from __future__ import annotations

import asyncio

import pytest

from opstream_journal import Connection
from tests.support.access.desk import AccessDesk, CallerWithKey
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ALL = ("submit", "read", "cancel")


async def waiting(desk: AccessDesk, caller: CallerWithKey, **headers: str) -> asyncio.Task[tuple[int, str]]:
    """A request for an open operation that has begun to wait."""
    await caller.submit(headers={"Operation-Id": "one"})
    path = "/status/one/events" if "Accept" in headers else "/status/one"

    async def ask() -> tuple[int, str]:
        answer = await caller.get(path, **headers)
        return answer.status_code, answer.text

    before = len(desk.api.watchers)
    task = asyncio.create_task(ask())
    await eventually(lambda: len(desk.api.watchers) > before)
    return task


async def test_a_wait_ends_with_its_key(desk: AccessDesk) -> None:
    """Within a second after it was revoked, with 401; the wait of another key of the same caller goes on."""
    ann, again = await desk.caller("acme", "ann", *ALL), await desk.caller("acme", "ann", *ALL)
    task = await waiting(desk, ann, Prefer="wait=60")
    other = asyncio.create_task(again.get("/status/one", Prefer="wait=60"))
    await eventually(lambda: [watch.users for watch in desk.api.watchers] == [2])
    await desk.revoke(ann)
    async with asyncio.timeout(2):
        status, text = await task
    assert (status, "Unauthenticated" in text) == (401, True)
    assert not other.done()
    await again.cancel("one")
    assert (await other).json()["status"] == "Canceled"


async def test_a_stream_ends_with_its_key(desk: AccessDesk) -> None:
    """Within a second, complete, so that an EventSource connects again and is refused then."""
    ann = await desk.caller("acme", "ann", *ALL)
    task = await waiting(desk, ann, Accept="text/event-stream")
    await desk.revoke(ann)
    async with asyncio.timeout(2):
        status, text = await task
    assert (status, text.count("event: requested")) == (200, 1)
    assert (await ann.get("/status/one/events", Accept="text/event-stream")).status_code == 401
    await eventually(lambda: not len(desk.api.watchers))


async def test_a_wait_ends_when_its_key_expires(desk: AccessDesk) -> None:
    """At that moment, without a look at the records."""
    ann = await desk.caller("acme", "ann", *ALL, lifetime=2)
    task = await waiting(desk, ann, Prefer="wait=60")
    stream = asyncio.create_task(ann.get("/status/one/events", Accept="text/event-stream"))
    async with asyncio.timeout(3):
        assert (await task)[0] == 401
        assert (await stream).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [("/book/42:upload-start", b'{"title": "Late"}'), ("/status/one:cancel", b'{"reason": "too late"}')],
)
async def test_a_body_that_comes_after_the_end_of_its_key_does_nothing(
    desk: AccessDesk, link: Connection, path: str, body: bytes
) -> None:
    """A client may take minutes for a body, and the door looked at the key before it."""
    ann = await desk.caller("acme", "ann", *ALL)
    await ann.submit(headers={"Operation-Id": "one"})
    late = await desk.caller("acme", "ann", *ALL)
    async with desk.api.connection() as (reader, writer):
        lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Expect: 100-continue")
        more = (f"Content-Length: {len(body)}", f"Authorization: Bearer {late.key}")
        writer.write("\r\n".join((*lines, *more, "", "")).encode())
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # so the door has let it pass
        await desk.revoke(late)

        async def is_refused() -> bool:
            return (await late.get("/openapi.json")).status_code == 401

        await eventually(is_refused, within=2)
        writer.write(body)
        assert b" 401 " in await reader.readuntil(b"\r\n\r\n")
    assert (await link.nc.jetstream().stream_info("OPERATIONS")).state.messages == 1
    assert (await ann.get("/status/one")).json()["status"] == "NotStarted"
