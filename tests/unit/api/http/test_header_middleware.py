"""The middleware that adds the request id and writes header names in the contract's case."""

from __future__ import annotations

from typing import Any

import pytest

from opstream_api.http.header_middleware import HEADER_CASE, HeaderMiddleware
from opstream_api.request_meter import RequestMeter

pytestmark = pytest.mark.unit


async def response_headers(*sent: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response to a request with the headers `sent`."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"operation-location", b"/x"), (b"content-length", b"0"), (b"x-ms-error-code", b"NotFound")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    care: Any = HeaderMiddleware(app, new_id=lambda: "id-1", count=RequestMeter().count)
    await care({"type": "http", "method": "GET", "path": "/x", "headers": list(sent)}, receive, send)
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    return [(bytes(name), value) for name, value in messages[0]["headers"]]


async def test_names_are_spelled_as_in_the_contract() -> None:
    """Header names have the contract's case, and each response has a request id."""
    assert await response_headers() == [
        (b"Operation-Location", b"/x"),
        (b"content-length", b"0"),
        (b"x-ms-error-code", b"NotFound"),
        (b"x-ms-request-id", b"id-1"),
    ]


def test_the_spelling_survives_uvicorn() -> None:
    """The case survives `lower()`, which uvicorn calls on each name before it writes it."""
    assert [name.lower() for name in HEADER_CASE.values()] == [
        b"Allow",
        b"Cache-Control",
        b"Content-Type",
        b"ETag",
        b"Index-Lag",
        b"Operation-Id",
        b"Operation-Location",
        b"Preference-Applied",
        b"Repeatability-Result",
        b"Retry-After",
        b"Vary",
        b"WWW-Authenticate",
        b"Access-Control-Allow-Origin",
        b"Access-Control-Expose-Headers",
        b"Access-Control-Allow-Methods",
        b"Access-Control-Allow-Headers",
        b"Access-Control-Max-Age",
        b"Referrer-Policy",
        b"Operation-Stored-Id",
    ]


@pytest.mark.parametrize("value", [b"abc-1", b"a b", b"x" * 128])
async def test_a_clients_request_id_is_echoed(value: bytes) -> None:
    """The client finds its request in both logs."""
    assert (b"x-ms-client-request-id", value) in await response_headers((b"x-ms-client-request-id", value))


@pytest.mark.parametrize("values", [[b""], [b"x" * 129], [b"\xff"], [b"a\tb"], [b"a\r\nSet-Cookie: x"], [b"a", b"b"]])
async def test_an_unusable_client_request_id_is_ignored(values: list[bytes]) -> None:
    """An invalid id does not become part of the response's head."""
    headers = await response_headers(*((b"x-ms-client-request-id", value) for value in values))
    assert [name for name, _ in headers if name == b"x-ms-client-request-id"] == []
