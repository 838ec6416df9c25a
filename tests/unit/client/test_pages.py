"""Lists in the Python clients: the query that is sent, and what becomes of an answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from opstream import AsyncOperationsClient, InvalidRequest, OperationsClient, RequestRefused, UnexpectedAnswer
from tests.support.client.scripted_server import ScriptedServer, answer, json_answer

pytestmark = pytest.mark.unit

LINK = "https://elsewhere.test/other/status?filter=x&cursor=abc"
PAGE = json_answer(200, {"value": [{"id": "a"}], "nextLink": LINK}, Index_Lag="0.4")
LAST = json_answer(200, {"value": []})


def test_a_page_of_each_client() -> None:
    """The next query is that of the link; its host is not asked."""
    with ScriptedServer(PAGE, LAST) as server, OperationsClient(server.url) as client:
        page = client.page("filter=x")
        assert (list(map(msgspec.json.decode, page.items)), page.lag) == ([{"id": "a"}], 0.4)
        last = client.page(page.next_query)
        assert (last.items, last.next_query, last.lag) == ((), "", None)
        assert [request.path for request in server.heard] == ["/status?filter=x", "/status?filter=x&cursor=abc"]

    async def ask(url: str) -> str:
        async with AsyncOperationsClient(url) as client:
            return (await client.page()).next_query

    with ScriptedServer(PAGE) as server:
        assert asyncio.run(ask(server.url)) == "filter=x&cursor=abc"
        assert [request.path for request in server.heard] == ["/status"]


def test_a_count_of_each_client() -> None:
    """Groups, durations, and from when on it is counted; what is no count is not from opstream."""
    took = {"count": 2, "p50": 1.0, "p95": 2.5, "max": 3.0}
    group = {"key": "book:print", "count": 2, "statuses": {"Failed": 2}, "duration": took}
    until = {"field": "createdAt", "from": "2026-11-24T08:00:00Z"}
    body = {"count": 3, "statuses": {"Failed": 3}, "by": "kind", "groups": 2, "value": [group, {"count": 1}]}
    with (
        ScriptedServer(json_answer(200, body | {"incomplete": until})) as server,
        OperationsClient(server.url) as client,
    ):
        count = client.count("by=kind")
        assert (count.count, count.groups, [one.key for one in count.value]) == (3, 2, ["book:print", None])
        assert count.value[0].duration is not None
        assert count.value[0].duration.p95 == 2.5
        assert count.incomplete is not None
        assert count.incomplete.begin == datetime(2026, 11, 24, 8, tzinfo=UTC)
        assert [request.path for request in server.heard] == ["/status:count?by=kind"]

    async def ask(url: str) -> int:
        async with AsyncOperationsClient(url) as client:
            return (await client.count()).count

    with ScriptedServer(json_answer(200, {"count": 7})) as server:
        assert asyncio.run(ask(server.url)) == 7
        assert [request.path for request in server.heard] == ["/status:count"]
    wrong = ScriptedServer(json_answer(200, []))
    with wrong as server, OperationsClient(server.url) as client, pytest.raises(UnexpectedAnswer):
        client.count()


def test_what_is_no_page() -> None:
    """A refusal has its code; anything else is not from opstream; a query that can't be sent is refused at once."""
    off = json_answer(404, {"error": {"code": "IndexOff", "message": "no index"}})
    with ScriptedServer(off) as server, OperationsClient(server.url) as client:
        with pytest.raises(RequestRefused) as caught:
            client.page()
        assert caught.value.code == "IndexOff"
    for wrong in (json_answer(200, []), answer(200, b"<html>"), json_answer(200, {"value": 1})):
        with ScriptedServer(wrong) as server, OperationsClient(server.url) as client, pytest.raises(UnexpectedAnswer):
            client.page()
    with OperationsClient("http://127.0.0.1:9") as client:
        for query in ("filter=a b", "filter=ü", "a#b", "a\nb"):
            with pytest.raises(InvalidRequest, match="percent-encode"):
                client.page(query)
