"""CORS: which sites' pages may read answers, and what a browser that asks first gets."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.types import Message, Receive, Scope, Send

from opstream_api.http.cors import CorsMiddleware
from opstream_api.http.responses import EncodedResponse

pytestmark = pytest.mark.unit

APP = "https://app.example"
ASKS = ("access-control-request-method", "POST")


async def call(origins: tuple[str, ...], *headers: tuple[str, str], method: str = "GET") -> tuple[int, dict[str, str]]:
    """Send a request through the middleware to a service that answers 404; return status and headers."""
    sent: list[Message] = []

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await EncodedResponse(404, [(b"vary", b"Prefer")])(scope, receive, send)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": method, "headers": [(n.encode(), v.encode()) for n, v in headers]}
    await CorsMiddleware(service, origins=origins)(scope, None, send)  # type: ignore[arg-type]
    found: dict[str, str] = {}
    for name, value in sent[0]["headers"]:  # type: ignore[typeddict-item]
        key = name.decode()
        found[key] = f"{found[key]}, {value.decode()}" if key in found else value.decode()
    return sent[0]["status"], found  # type: ignore[typeddict-item]


async def test_a_page_of_an_allowed_site_reads_answers() -> None:
    """Errors, too; with the headers that a client needs, and never with the browser's own logins."""
    status, headers = await call((APP,), ("origin", APP))
    assert status == 404
    assert headers["access-control-allow-origin"] == APP
    assert headers["vary"] == "Prefer, Origin"
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"Operation-Location", "Retry-After", "ETag", "Operation-Id", "x-ms-error-code"} <= set(exposed)
    assert {"Index-Lag", "Operation-Stored-Id"} <= set(exposed)
    assert "access-control-allow-credentials" not in headers


async def test_a_browser_that_asks_first_gets_its_answer() -> None:
    """The service itself is not asked."""
    status, headers = await call((APP,), ("origin", APP), ASKS, method="OPTIONS")
    assert status == 204
    assert headers["access-control-allow-origin"] == APP
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, DELETE"
    allowed = {name.lower() for name in headers["access-control-allow-headers"].split(", ")}
    assert {"authorization", "content-type", "operation-id", "prefer", "if-none-match", "last-event-id"} <= allowed
    assert "access-control-allow-credentials" not in headers


FOREIGN = [
    (),
    (("origin", "https://evil.example"),),
    (("origin", "https://app.example.evil"),),
    (("origin", "http://app.example"),),
    (("origin", "https://app.example:443"),),
    (("origin", "null"),),
    (("origin", ""),),
    (("origin", "*"),),
    (("origin", APP), ("origin", "https://evil.example")),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_site_reads_nothing(headers: tuple[tuple[str, str], ...]) -> None:
    """Its preflight goes to the service, which refuses it; caches hear that the answer depends on the site."""
    for method, more in (("GET", ()), ("OPTIONS", (ASKS,))):
        status, found = await call((APP,), *headers, *more, method=method)
        assert status == 404
        assert [name for name in found if name.startswith("access-control")] == []
        assert found["vary"] == "Prefer, Origin"


async def test_any_site_if_the_operator_says_so() -> None:
    """Then the answer is the same for all, and still without logins of the browser."""
    for headers in FOREIGN:
        status, found = await call(("*",), *headers)
        assert (status, found["access-control-allow-origin"], found["vary"]) == (404, "*", "Prefer")
        assert "access-control-allow-credentials" not in found


async def test_an_options_request_that_is_no_preflight_goes_on() -> None:
    """The service says which methods there are."""
    assert (await call((APP,), ("origin", APP), method="OPTIONS"))[0] == 404
