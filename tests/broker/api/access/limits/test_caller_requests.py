"""The limit of a caller's requests, attacked over HTTP, in one process and in two that share a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from opstream_api.access.limits.request_exchange import RequestExchange
from opstream_api.access.limits.request_limit import RequestLimit
from opstream_api.access.principal import Owner
from opstream_journal import Connection, announce_action
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.names import Kind
from opstream_schemas.operation.rate_limit import parse_rate
from tests.support.access.desk import AccessDesk, serving_with_keys
from tests.support.api.service import serving, spec, stored_messages
from tests.support.broker.roles import RoleBroker
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ANN = Owner("acme", "ann")


@pytest.fixture
async def limited(broker: Broker, link: Connection) -> AsyncIterator[AccessDesk]:
    """A service that lets five requests of a caller pass in an hour."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, caller_requests="5/h") as desk:
        yield desk


async def test_a_flood_of_one_caller_is_refused_and_no_other_caller(limited: AccessDesk, link: Connection) -> None:
    """By each path, with the time to wait; nothing is recorded, and a second key of the caller changes nothing."""
    ann = await limited.caller("acme", "ann", "submit", "read", is_awaited=False)
    await limited.is_known(ann)
    left = 4
    answers = await asyncio.gather(*(ann.get("/status/none") for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [404] * left + [429] * (20 - left)
    second = await limited.caller("acme", "ann", "submit", is_awaited=False)
    before = await stored_messages(link)

    async def is_refused() -> bool:
        return (await second.get("/openapi.json")).status_code == 429

    await eventually(is_refused, within=5)
    headers = {"Repeatability-Request-ID": "1", "Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT"}
    for answer in (await ann.submit(headers=headers), await ann.cancel("none"), await second.submit()):
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "TooManyRequests")
        assert answer.headers["x-ms-error-code"] == "TooManyRequests"
        assert 600 < int(answer.headers["Retry-After"]) <= 720
    assert (await ann.submit(headers=headers)).headers["Repeatability-Result"] == "rejected"
    assert await stored_messages(link) == before
    for tenant, subject in (("acme", "bob"), ("evil", "ann")):
        other = await limited.caller(tenant, subject, "submit")
        assert (await other.submit()).status_code == 202
    assert (await limited.api.client.get("/healthz")).status_code == 200
    assert (await limited.api.client.get("/openapi.json")).status_code == 401


async def test_a_status_url_uses_up_nothing_of_its_owner(limited: AccessDesk) -> None:
    """Its visitors have a limit of their own, for each operation."""
    ann = await limited.caller("acme", "ann", "submit", "read")
    submitted = await ann.submit(headers={"Prefer": "status-token=600", "Operation-Id": "one"})
    url = submitted.headers["Operation-Location"]
    answers = [await limited.api.client.get(url) for _ in range(8)]
    assert [one.status_code for one in answers] == [200] * 5 + [429] * 3
    assert (await ann.get("/status/one")).status_code == 200


async def test_a_caller_gets_no_more_from_two_processes(broker: Broker, link: Connection) -> None:
    """A flood over both: what one has let pass, the other does not let pass besides."""
    await announce_action(link, spec())
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(serving_with_keys(broker, link, caller_requests="40/h"))
        other = await stack.enter_async_context(serving(broker.url, auth=("keys",), caller_requests="40/h"))
        ann = await desk.caller("acme", "ann", "read")
        headers = {"Authorization": f"Bearer {ann.key}"}

        async def elsewhere() -> int:
            return (await other.client.get("/status/none", headers=headers)).status_code

        async def is_known() -> bool:
            return await elsewhere() != 401

        await eventually(is_known, within=2)
        for _ in range(36):
            assert (await ann.get("/status/none")).status_code == 404

        seen = []

        async def is_refused() -> bool:
            seen.append(await elsewhere())
            return seen[-1] == 429

        # Of its own 40 it has let few pass, so it refuses only because it hears of the others.
        await eventually(is_refused, within=20, poll=0.1)
        assert len(seen) < 20


async def test_a_message_that_is_none_harms_nothing(broker: Broker, link: Connection) -> None:
    """Neither bytes of another form nor a count beyond all bounds; requests of others still count."""
    limit = RequestLimit(parse_rate("10/h"), time.monotonic)
    exchange = RequestExchange(link, limit)
    await exchange.start()
    try:
        for data in (b"", b"\xff", b"[]", b'{"process": 1}', b'{"process": "x", "passed": [["a", "b", "c"]]}'):
            await link.nc.publish(subjects.CALLER_REQUESTS, data)
        await link.nc.publish(
            subjects.CALLER_REQUESTS, b'{"process": "x", "passed": [["acme", "ann", 9], ["acme", "bob", 10000000]]}'
        )
        await eventually(lambda: len(limit) == 2, within=5)
        assert [limit.take(ANN) == 0 for _ in range(2)] == [True, False]
        assert limit.take(Owner("acme", "bob")) < 2 * 3600
    finally:
        await exchange.stop()


async def test_no_other_role_hears_or_forges_what_has_passed(tmp_path: Path) -> None:
    """With a login for each role the API processes hear each other, and only each other."""
    with RoleBroker(tmp_path, [ActionAccess(Kind("book", "upload"))], durables=["mailer"]) as broker:
        links = {
            name: await broker.connect(name)
            for name in ("api", "runner", "projector", "webhooks", "subscriber-mailer", "auditor", "admin")
        }
        second = await broker.connect("api")
        heard: list[str] = []

        def spy(name: str) -> Any:
            return lambda _message: heard.append(name)

        limit = RequestLimit(parse_rate("10/h"), time.monotonic)
        exchange = RequestExchange(second, limit)
        await exchange.start()
        try:
            for name, link in links.items():
                await link.subscribe(">", spy(name))
                await link.nc.flush()
            await second.nc.flush()
            for name, link in links.items():
                if name != "api":
                    forged = f'{{"process": "x", "passed": [["acme", "{name}", 5]]}}'.encode()
                    await link.nc.publish(subjects.CALLER_REQUESTS, forged)
                    await link.nc.flush()
            heard.clear()
            await links["api"].nc.publish(subjects.CALLER_REQUESTS, b'{"process": "x", "passed": [["acme", "ann", 5]]}')
            await eventually(lambda: len(limit) > 0, within=5)
            for link in links.values():
                await link.nc.flush()
            assert len(limit) == 1
            assert set(heard) == {"api"}
        finally:
            await exchange.stop()
            for link in (*links.values(), second):
                await link.close()
