"""The request log of a real service: one line for each request, at its end, without anything that a client hid."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from opstream_journal import Connection, announce_action
from opstream_schemas.logs.json_formatter import BatchRecord
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

HERE = (ipaddress.ip_network("127.0.0.0/8"),)
ANN = {"X-User": "ann", "Authorization": "Bearer secret-token"}


@pytest.fixture
async def api(broker: Broker, link: Connection, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Api]:
    """A service with a request log that trusts this machine."""
    caplog.set_level(logging.INFO)
    await announce_action(link, spec())
    async with serving(broker.url, trusted_proxies=HERE, identity_header="X-User") as api:
        yield api


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The members of the lines so far."""

    def read() -> list[dict[str, Any]]:
        batches = [found for found in caplog.records if isinstance(found, BatchRecord)]
        return [json.loads(f"{{{one.members_json()}}}") for found in batches for one in found.entries]

    return read


async def test_lines_of_requests(
    api: Api, logged: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    """Method, template, status, caller, operation and request id; no path, no query, no token, no resource id."""
    accepted = await api.submit("/book/hidden-42:upload-start", headers={**ANN, "Operation-Id": "op-1"})
    assert accepted.status_code == 202
    await api.submit("/book/hidden-42:upload-start", "no object", headers={"Operation-Id": "op-2"})
    await api.submit("/secret-res/1:hidden-act", headers={"Operation-Id": "op-3"})
    await api.status("op-1")
    await api.client.get("/status/op-1?token=hidden-query")
    await api.client.get("/status/op-1/events")
    await api.cancel("op-1")
    await api.client.get("/hidden-path")
    await api.client.get("/healthz")
    await api.client.request("HEAD", "/openapi.json")
    await eventually(lambda: len(logged()) == 9)
    found = [(one["method"], one["path"], one["status"], one.get("operationId"), one.get("caller")) for one in logged()]
    assert found == [
        ("POST", "/book/{id}:upload-start", 202, "op-1", "ann"),
        ("POST", "/book/{id}:upload-start", 400, "op-2", None),
        ("POST", "/{resource}/{id}:{action}", 404, "op-3", None),
        ("GET", "/status/{id}", 200, "op-1", None),
        ("GET", "/status/{id}", 400, "op-1", None),
        ("GET", "/status/{id}/events", 200, "op-1", None),
        ("POST", "/status/{id}:cancel", 200, "op-1", None),
        ("GET", "/{path}", 404, None, None),
        ("HEAD", "/openapi.json", 200, None, None),
    ]
    assert logged()[0]["requestId"] == accepted.headers["x-ms-request-id"]
    assert not any("isAborted" in one for one in logged())
    ours = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("opstream"))
    assert "/book/{id}:upload-start" in ours
    assert not re.search("hidden|secret", ours)


async def test_a_long_wait_is_logged_at_its_end(api: Api, logged: Callable[[], list[dict[str, Any]]]) -> None:
    """A wait has one line, when it is over; one whose client left, and a stream that ends so, say that they were
    aborted."""
    await api.submit(headers={"Operation-Id": "op-1"})
    waiting = asyncio.create_task(api.wait("op-1", 30))
    async with api.connection() as (_, leaver), api.connection() as (stream, follower):
        leaver.write(b"GET /status/op-1 HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n")
        follower.write(b"GET /status/op-1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        await stream.readuntil(b"\r\n\r\n")
        await eventually(lambda: len(api.watchers) >= 1)
        assert [one["path"] for one in logged()] in ([], ["/book/{id}:upload-start"])
    await eventually(lambda: len(logged()) == 3)
    aborted = {one["path"]: one for one in logged() if one.get("isAborted")}
    assert set(aborted) == {"/status/{id}", "/status/{id}/events"}
    assert (aborted["/status/{id}"]["status"], aborted["/status/{id}/events"]["status"]) == (0, 200)
    await api.cancel("op-1")
    assert (await waiting).json()["status"] == "Canceled"
    await eventually(lambda: len(logged()) == 5)
    (line,) = [one for one in logged() if one["path"] == "/status/{id}" and not one.get("isAborted")]
    assert (line["status"], line["operationId"]) == (200, "op-1")


async def test_switched_off(broker: Broker, link: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """Without the log nothing is written about a request."""
    caplog.set_level(logging.DEBUG, logger="opstream_api.requests")
    await announce_action(link, spec())
    async with serving(broker.url, has_request_log=False) as api:
        await api.submit(headers={"Operation-Id": "op-1"})
        await api.client.get("/readyz")
    assert not [one for one in caplog.records if one.name == "opstream_api.requests"]
