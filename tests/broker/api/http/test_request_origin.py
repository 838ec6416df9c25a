"""Attacks from the browser of someone who can reach the service: other sites, and names that resolve to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_journal import Connection, announce_action
from tests.support.api.service import JSON, Api, RawResponse, post, serving, spec, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

SUBMIT = "/book/1:upload-start"
INPUT = b'{"title":"x"}'
PUBLIC = "https://api.example/ops"
APP = "https://app.example"
CROSS = "Sec-Fetch-Site: cross-site"


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service on a loopback address with the default rules, but for one allowed site."""
    await announce_action(link, spec())
    async with serving(broker.url, allowed_hosts=(), allowed_origins=(APP,), public_url=PUBLIC) as api:
        yield api


def get(path: str, host: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def check(reply: RawResponse, status: int, code: str, next_step: str) -> None:
    """Check that a request was refused, and that the message says what its operator can do."""
    error = msgspec.json.decode(reply.body)["error"]
    assert (reply.status, error["code"], reply.header("x-ms-error-code")) == (status, code, code)
    assert next_step in error["message"]
    assert len(reply.header("x-ms-request-id")) == 36


@pytest.mark.parametrize(
    "path", ["/status/1", "/status/1/events", "/docs", "/docs/page.css", "/openapi.json", "/asyncapi.json"]
)
async def test_a_site_whose_name_resolves_to_this_machine_reads_nothing(api: Api, path: str) -> None:
    """Its requests name it as the host (DNS rebinding), however they spell the path."""
    for spelled in (path, f"{path}/", path.replace("/", "//", 1), path.replace("s", "%73", 1)):
        check(await api.raw(get(spelled, "evil.example:8080")), 421, "UnknownHost", "--allowed-host")
    assert (await api.raw(get(path, "localhost:1"))).status != 421


async def test_a_site_whose_name_resolves_to_this_machine_does_nothing(api: Api, link: Connection) -> None:
    """Neither a submit nor a cancel, though the browser takes them for its own site's."""
    for path in (SUBMIT, "/status/1:cancel"):
        sent = post(path, INPUT, "Origin: http://evil.example", "Sec-Fetch-Site: same-origin", host="evil.example")
        check(await api.raw(sent), 421, "UnknownHost", "--allowed-host")
    assert await stored_messages(link) == 0


async def test_two_hosts_are_none(api: Api) -> None:
    """A proxy may read the other one."""
    sent = b"GET /docs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    check(await api.raw(sent), 400, "InvalidHeader", "two Host headers")


async def test_probes_name_the_service_by_any_address(api: Api) -> None:
    """And nothing else does."""
    for path in ("/healthz", "/readyz"):
        assert (await api.raw(get(path, "10.1.2.3:8080"))).status == 200
        assert (await api.raw(get(f"{path}/", "10.1.2.3:8080"))).status == 421


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]", "api.example", "api.example:443"])
async def test_its_own_names_are_allowed(api: Api, host: str) -> None:
    """Those of this machine, and the host of the public URL."""
    assert (await api.raw(post(SUBMIT, INPUT, host=host))).status == 202


CROSS_SITE = [
    (CROSS, "Origin: https://evil.example"),
    ("Sec-Fetch-Site: same-site", "Origin: http://localhost:3000"),
    (CROSS,),
    (CROSS, "Origin: null"),
    ("Origin: null",),
    ("Origin: https://evil.example",),
    ("Origin: http://localhost:3000",),
    ("Origin: http://localhost.evil.example:8080",),
    ("Origin: https://app.example.evil",),
    ("Origin: https://app.example", "Origin: https://evil.example"),
    (CROSS, "Sec-Fetch-Site: same-origin", "Origin: https://evil.example"),
    ("Sec-Fetch-Site: ", "Origin: https://evil.example"),
    ("Origin: ",),
    ("Origin: http://app.example",),
]


@pytest.mark.parametrize("headers", CROSS_SITE, ids=" ".join)
async def test_a_page_of_another_site_does_nothing(api: Api, link: Connection, headers: tuple[str, ...]) -> None:
    """A browser sends such a request without asking, and the site can't read the answer: but it would be done."""
    for path, body in ((SUBMIT, INPUT), (SUBMIT, b""), ("/status/1:cancel", b"")):
        for kind in ((), ("Content-Type: text/plain",)):
            sent = post(path, body, *headers, *kind, host="localhost:8080")
            check(await api.raw(sent), 403, "CrossSiteRequest", "--allowed-origin")
    assert await stored_messages(link) == 0


OWN_SITE = [
    (),
    ("Sec-Fetch-Site: same-origin", "Origin: https://another.example"),  # behind a proxy that rewrites Host
    ("Sec-Fetch-Site: none",),
    ("Origin: http://localhost:8080",),
    ("Origin: https://LOCALHOST:8080",),  # behind a proxy that ends TLS
    (f"Origin: {APP}",),
    (CROSS, f"Origin: {APP}"),
    ("Sec-Fetch-Site: same-site", "Origin: https://api.example"),
]


@pytest.mark.parametrize("headers", OWN_SITE, ids=" ".join)
async def test_its_own_pages_and_allowed_ones_submit(api: Api, headers: tuple[str, ...]) -> None:
    """`Try it out` of /docs, with and without a proxy; clients that are no browser; the sites that are allowed."""
    assert (await api.raw(post(SUBMIT, INPUT, *headers, host="localhost:8080"))).status == 202


async def test_a_body_without_a_type_is_what_another_site_can_send(api: Api, link: Connection) -> None:
    """Old browsers say nothing about the site, but a page can't declare JSON without asking first."""
    body = f"Content-Length: {len(INPUT)}"
    sent = "\r\n".join([f"POST {SUBMIT} HTTP/1.1", "Host: localhost", body, "", ""]).encode() + INPUT
    check(await api.raw(sent), 415, "UnsupportedMediaType", f"Content-Type: {JSON}")
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""):
        reply = await api.raw(post(SUBMIT, INPUT, f"Content-Type: {kind}", host="localhost"))
        assert reply.status == 415
    assert await stored_messages(link) == 0


@pytest.fixture
async def shared(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """The same service, which lets the pages of one site read what it says."""
    await announce_action(link, spec())
    async with serving(broker.url, allowed_hosts=(), cors_origins=(APP,), public_url=PUBLIC) as api:
        yield api


def cors_headers(reply: RawResponse) -> dict[str, str]:
    """What an answer says to browsers."""
    return {name: value for name, value in reply.headers if name.startswith("Access-Control-")}


async def test_a_page_of_a_named_site_uses_the_service(shared: Api) -> None:
    """Its browser asks first, then it submits and reads the answer and the headers of it; errors can be read, too."""
    asked = get(SUBMIT, "localhost").replace(b"GET", b"OPTIONS")
    asks = f"\r\nOrigin: {APP}\r\nAccess-Control-Request-Method: POST\r\n\r\n".encode()
    preflight = await shared.raw(asked.replace(b"\r\n\r\n", asks))
    assert (preflight.status, preflight.header("Access-Control-Allow-Origin")) == (204, APP)
    assert "Operation-Id" in preflight.header("Access-Control-Allow-Headers")
    sent = await shared.raw(post(SUBMIT, INPUT, CROSS, f"Origin: {APP}", host="localhost"))
    assert (sent.status, sent.header("Access-Control-Allow-Origin")) == (202, APP)
    assert "Operation-Location" in sent.header("Access-Control-Expose-Headers")
    refused = await shared.raw(post(SUBMIT, b"{", CROSS, f"Origin: {APP}", host="localhost"))
    assert (refused.status, refused.header("Access-Control-Allow-Origin")) == (400, APP)


async def test_a_page_of_a_site_without_a_name_gets_nothing(shared: Api, link: Connection) -> None:
    """Neither an answer to its browser's question, nor what it asks for."""
    for origin in ("https://evil.example", "null"):
        lines = f"\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\r\n".encode()
        asked = get(SUBMIT, "localhost").replace(b"GET", b"OPTIONS").replace(b"\r\n\r\n", lines)
        preflight = await shared.raw(asked)
        assert (preflight.status, cors_headers(preflight)) == (405, {})
        reply = await shared.raw(post(SUBMIT, INPUT, CROSS, f"Origin: {origin}", host="localhost"))
        check(reply, 403, "CrossSiteRequest", "--cors-origin")
        assert cors_headers(reply) == {}
    assert await stored_messages(link) == 0


async def test_reads_of_another_site_are_answered(api: Api) -> None:
    """They change nothing, and without CORS headers the browser keeps the answer from the page."""
    sent = get("/status/1", "localhost").replace(b"\r\n\r\n", f"\r\n{CROSS}\r\nOrigin: {APP}\r\n\r\n".encode())
    reply = await api.raw(sent)
    assert reply.status == 404
    assert "access-control" not in " ".join(name.lower() for name, _ in reply.headers)
