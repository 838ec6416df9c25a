"""Headers, query and body of a request, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from opstream_api.errors import ApiError
from opstream_api.http.requests import base_url, check_content_type, check_query, parse_headers, parse_trace, read_body
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Trace

pytestmark = pytest.mark.unit

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
LIMIT = 100


def code_of(check: Callable[[], object]) -> tuple[ErrorCode, str]:
    """Return the code and target of the error that a check raises."""
    with pytest.raises(ApiError) as caught:
        check()
    return caught.value.code, caught.value.body.error.target


def receiving(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """An ASGI receive that fails if it is called after its last message."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def chunk(size: int, *, more: bool) -> dict[str, Any]:
    """An ASGI message with a part of a body."""
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


@pytest.mark.parametrize("query", [b"", b"api-version=2026-01-01", b"api-version=1&api-version=2", b"api-version"])
def test_api_version_is_tolerated(query: bytes) -> None:
    """Azure clients always send `api-version`."""
    check_query(query)


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (b"dry-run=1", "dry-run"),
        (b"x", "x"),
        (b"api-version=1&apiversion=2", "apiversion"),
        (b"API-VERSION=1", "API-VERSION"),
        (b"%ff=1", "\ufffd"),
        (b"=1", ""),
    ],
)
def test_other_query_parameters_are_refused(query: bytes, target: str) -> None:
    """An unknown parameter is not ignored."""
    assert code_of(lambda: check_query(query)) == (ErrorCode.INVALID_PARAMETER, target)


@pytest.mark.parametrize("host", ["api.test", "api.test:8080", "127.0.0.1:1", "[::1]:8080", "my_api", "localhost"])
def test_links_start_with_the_clients_own_host(host: str) -> None:
    """The client reaches the service there, so it can follow the link."""
    assert base_url(parse_headers([(b"host", host.encode())]), "http") == f"http://{host}"


@pytest.mark.parametrize(
    "hosts", [[], [b""], [b"a b"], [b"a/b"], [b"a@b"], [b"a:b"], [b"a:123456"], [b"a?b"], [b"a", b"a"], [b"x" * 300]]
)
def test_a_host_that_makes_no_link_is_refused(hosts: list[bytes]) -> None:
    """A `Host` that would change the meaning of a link is an invalid header."""
    headers = parse_headers((b"host", host) for host in hosts)
    assert code_of(lambda: base_url(headers, "http")) == (ErrorCode.INVALID_HEADER, "Host")


def test_a_trace_context_is_kept() -> None:
    """It becomes part of the submit."""
    headers = parse_headers([(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    assert parse_trace(headers) == Trace(traceparent=PARENT, tracestate="a=1,b=2")


def test_a_later_version_of_trace_context_is_kept() -> None:
    """Later versions may have more fields."""
    parent = f"01-{TRACE_ID}-b7ad6b7169203331-01-more"
    assert parse_trace(parse_headers([(b"traceparent", parent.encode())])) == Trace(traceparent=parent)


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        ["nonsense"],
        [PARENT, PARENT],
        [PARENT.upper()],
        [f"ff-{TRACE_ID}-b7ad6b7169203331-01"],
        [f"00-{'0' * 32}-b7ad6b7169203331-01"],
        [f"00-{TRACE_ID}-{'0' * 16}-01"],
        [f"{PARENT}-more"],
    ],
)
def test_a_malformed_trace_context_is_ignored(parents: list[str]) -> None:
    """W3C Trace Context asks for that; the request continues without it."""
    assert parse_trace(parse_headers((b"traceparent", parent.encode()) for parent in parents)) is None


@pytest.mark.parametrize("state", ["x" * 513, "a=\x01", "a=ü"])
def test_an_unusable_tracestate_is_dropped_alone(state: str) -> None:
    """The `traceparent` stays."""
    headers = parse_headers([(b"traceparent", PARENT.encode()), (b"tracestate", state.encode("latin-1"))])
    assert parse_trace(headers) == Trace(traceparent=PARENT)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/merge-patch+json",
        "application/json; profile=x",
    ],
)
def test_json_is_accepted(value: str | None) -> None:
    """JSON is accepted in each of its media types, and without one."""
    check_content_type(parse_headers([(b"content-type", value.encode())] if value is not None else []))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "text/json",
        "application/jsonx",
        "application/json, text/plain",
    ],
)
def test_other_media_types_are_not(value: str) -> None:
    """A guess could store an input that the client did not mean."""
    headers = parse_headers([(b"content-type", value.encode())])
    assert code_of(lambda: check_content_type(headers)) == (ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Content-Type")


def test_compressed_bodies_are_refused() -> None:
    """A few compressed bytes could become any number of bytes."""
    headers = parse_headers([(b"content-encoding", b"gzip")])
    assert code_of(lambda: check_content_type(headers)) == (ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding")


@pytest.mark.parametrize("value", ["", " ", "identity", "Identity "])
def test_a_body_without_an_encoding_may_say_so(value: str) -> None:
    """Some clients send an empty `Content-Encoding`."""
    check_content_type({b"content-type": ["application/json"], b"content-encoding": [value]})


async def test_a_body_comes_in_parts() -> None:
    """A body of exactly the limit is accepted."""
    receive = receiving(chunk(60, more=True), chunk(40, more=True), chunk(0, more=False))
    assert await read_body(receive, parse_headers([]), LIMIT) == b"x" * LIMIT


async def test_a_client_that_disconnects_sent_no_body() -> None:
    """Half a body is none."""
    receive = receiving(chunk(60, more=True), {"type": "http.disconnect"})
    assert await read_body(receive, parse_headers([]), LIMIT) is None


async def test_a_large_body_is_read_to_its_end_and_refused() -> None:
    """The client, which sends before it reads, can then read the response and use its connection again."""
    receive = receiving(chunk(60, more=True), chunk(60, more=True), chunk(5, more=False))
    with pytest.raises(ApiError) as caught:
        await read_body(receive, parse_headers([]), LIMIT)
    assert (caught.value.code, caught.value.headers) == (ErrorCode.PAYLOAD_TOO_LARGE, {})


async def test_a_body_without_end_is_not_read_to_it() -> None:
    """The connection is closed instead, after a bounded number of bytes."""
    receive = receiving(*[chunk(LIMIT, more=True)] * 9)
    with pytest.raises(ApiError) as caught:
        await read_body(receive, parse_headers([]), LIMIT)
    assert (caught.value.code, caught.value.headers) == (ErrorCode.PAYLOAD_TOO_LARGE, {"Connection": "close"})


@pytest.mark.parametrize(
    "pairs", [[(b"content-length", b"1000000")], [(b"content-length", b"101"), (b"expect", b"100-continue")]]
)
async def test_a_declared_length_is_refused_unread(pairs: list[tuple[bytes, bytes]]) -> None:
    """A client with `Expect`, or with far too many bytes, gets the error at once."""
    with pytest.raises(ApiError) as caught:
        await read_body(receiving(), parse_headers(pairs), LIMIT)
    assert (caught.value.code, caught.value.headers) == (ErrorCode.PAYLOAD_TOO_LARGE, {"Connection": "close"})


async def test_a_body_that_never_ends_does_not_hold_the_service() -> None:
    """uvicorn cancels open requests after the grace period, and the client gets the contract's error."""

    async def receive() -> Any:
        waits.set()
        await asyncio.Event().wait()

    waits = asyncio.Event()
    reading = asyncio.create_task(read_body(receive, parse_headers([]), LIMIT))
    await waits.wait()
    reading.cancel()
    with pytest.raises(ApiError) as caught:
        await reading
    assert (caught.value.code, caught.value.headers["Connection"]) == (ErrorCode.JOURNAL_UNAVAILABLE, "close")
