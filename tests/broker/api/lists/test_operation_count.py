"""Counts on a real service: numbers, errors, and whose operations they count."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from opstream_api.lists import operation_counts
from opstream_index.counts import reader, tally
from opstream_journal import Connection, announce_action
from tests.support.access.desk import AccessDesk, serving_with_keys
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import BEGIN, row

pytestmark = pytest.mark.broker

SECOND = 1_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FilledIndex]:
    """An index that is complete up to now, with ten operations of two actions; number 0 to 2 failed, 9 is open."""
    found = FilledIndex(tmp_path)
    found.complete_until(time.time_ns() // 1000)
    for number in range(10):
        begun = BEGIN + number * SECOND
        failed = {"status": "Failed", "code": "Timeout" if number else "503"} if number < 3 else {}
        opened = {"status": "Running", "finished_at": None} if number == 9 else {}
        values: dict[str, Any] = {
            "created_at": begun,
            "started_at": begun,
            "finished_at": begun + (number + 1) * SECOND,
            "action": "scan" if number % 5 == 0 else "print",
            "tenant": "acme" if number % 2 else "",
            "caller": "ann" if number < 6 else "bob",
        }
        found.write(row(number, **{**values, **failed, **opened}))
    yield found
    found.close()


@pytest.fixture
async def api(broker: Broker, link: Connection, index: FilledIndex) -> AsyncIterator[Api]:
    """A service with an index, which asks for no credentials: it counts what has no tenant, five operations."""
    await announce_action(link, spec())
    async with serving(broker.url, index=index.location) as api:
        yield api


async def count(api: Api, **params: str) -> dict[str, Any]:
    """A count."""
    answer = await api.client.get("/status:count", params=params)
    assert answer.status_code == 200, answer.text
    assert float(answer.headers["Index-Lag"]) >= 0
    found: dict[str, Any] = answer.json()
    return found


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and target of an error."""
    found = answer.json()["error"]
    return answer.status_code, found["code"], found.get("target", "")


async def test_a_count(api: Api) -> None:
    """The number, how they stand, and how long they took; by a field, the most frequent value first."""
    assert await count(api) == {
        "count": 5,
        "statuses": {"Succeeded": 3, "Failed": 2},
        "duration": {"count": 5, "p50": pytest.approx(5, rel=0.05), "p95": pytest.approx(9, rel=0.05), "max": 9},
    }
    by_kind = await count(api, by="kind", filter="createdAt ge 2020-01-01T00:00:00Z")
    assert (by_kind["by"], by_kind["groups"], by_kind["count"]) == ("kind", 2, 5)
    assert [(one["key"], one["count"], one["statuses"]) for one in by_kind["value"]] == [
        ("book:print", 4, {"Succeeded": 3, "Failed": 1}),
        ("book:scan", 1, {"Failed": 1}),
    ]
    by_code = await count(api, by="error/code", top="1")
    assert by_code["groups"] == 3
    assert [(one.get("key"), one["count"]) for one in by_code["value"]] == [(None, 3)]
    assert (await count(api, filter="status eq 'Canceled'")) == {"count": 0, "statuses": {}}
    head = await api.client.head("/status:count")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_count_that_takes_too_long(api: Api) -> None:
    """It has the newest, all of them, and says from when on; the rest is counted from there."""
    with mock.patch.object(reader, "STEP", 2), mock.patch.object(reader, "COUNT_SECONDS", 0.0):
        first = await count(api, by="status")
        begin = first["incomplete"]["from"]
        assert (first["count"], first["incomplete"]["field"]) == (2, "createdAt")
        rest = await count(api, filter=f"createdAt ge {begin}")
        assert rest["count"] == 2
    assert (await count(api, filter=f"createdAt lt {begin}"))["count"] == 3


async def test_errors(api: Api, broker: Broker, index: FilledIndex) -> None:
    """Each says what to do; without an index there is nothing to count."""
    get = api.client.get
    assert error(await get("/status:count?filter=nonsense")) == (400, "InvalidParameter", "filter")
    assert error(await get("/status:count", params={"filter": "attempt gt 3"})) == (400, "InvalidParameter", "filter")
    assert error(await get("/status:count?by=attempt")) == (400, "InvalidParameter", "by")
    assert error(await get("/status:count?top=0")) == (400, "InvalidParameter", "top")
    assert error(await get("/status:count?cursor=x")) == (400, "InvalidParameter", "cursor")
    with mock.patch.object(tally, "MAX_GROUPS", 1), mock.patch.object(operation_counts, "MAX_GROUPS", 1):
        assert error(await get("/status:count?by=status")) == (400, "InvalidParameter", "by")
    posted = await api.client.post("/status:count")
    assert (error(posted)[:2], posted.headers["Allow"]) == ((405, "MethodNotAllowed"), "GET, HEAD")
    index.complete_until(0, is_complete=False)
    assert error(await get("/status:count"))[:2] == (503, "IndexUnavailable")
    async with serving(broker.url) as other:
        assert error(await other.client.get("/status:count"))[:2] == (404, "IndexOff")


async def test_whose_operations_are_counted(broker: Broker, link: Connection, index: FilledIndex) -> None:
    """A caller's own, with `read:all` those of its tenant, whatever it counts by; without `read` none."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, index=index.location) as desk:
        callers = {
            "ann": (await desk.caller("acme", "ann", "read"), {"ann": 3}),
            "auditor": (await desk.caller("acme", "aud", "read:all"), {"ann": 3, "bob": 2}),
            "new": (await desk.caller("evil", "ann", "read", "read:all"), {}),
            "operator": (await desk.caller("", "root", "admin"), {"ann": 3, "bob": 2}),
        }
        for caller, wanted in callers.values():
            for text in ("", "kind in ('book:print', 'book:scan')", "caller in ('ann', 'bob')"):
                params = {"by": "caller"} | ({"filter": text} if text else {})
                found = (await caller.client.get("/status:count", params=params)).json()
                assert {one["key"]: one["count"] for one in found["value"]} == wanted
                assert found["count"] == sum(wanted.values())
        await _refused(desk)


async def _refused(desk: AccessDesk) -> None:
    writer = await desk.caller("acme", "wes", "submit", "cancel")
    assert error(await writer.get("/status:count"))[:2] == (403, "Forbidden")
    assert error(await desk.api.client.get("/status:count"))[:2] == (401, "Unauthenticated")
    ann = await desk.caller("acme", "ann", "submit", "read")
    made = await ann.submit(headers={"Prefer": "status-token=600"})
    token = made.headers["Operation-Location"].partition("?")[2]  # it opens one status, and counts nothing
    assert error(await desk.api.client.get(f"/status:count?{token}"))[:2] == (401, "Unauthenticated")
    assert (await ann.get("/status%3Acount")).status_code == 404  # a proxy's rule for the path would not see it
