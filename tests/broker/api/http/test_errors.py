"""Every error: the contract's body and headers, and nothing in the stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import pytest

from opstream_journal import Connection, announce_action
from opstream_schemas import subjects
from opstream_schemas.status_monitor import ErrorBody
from tests.support.api.service import Api, RawResponse, post, serving, spec, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

PATH: Final = "/book/42:upload-start"
VALID: Final = b'{"title":"x"}'
CHUNKED: Final = "Transfer-Encoding: chunked"


def request(method: str, path: str, *headers: str) -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: api.test", *headers, "", ""]).encode("latin-1")


def chunked(path: str, size: int) -> bytes:
    """A POST in chunks, without a declared length."""
    head = request("POST", path, CHUNKED)
    return head + b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(size // 4096)) + b"0\r\n\r\n"


# name, request, status, code, target
TABLE: Final = [
    ("malformed JSON", post(PATH, b'{"title":'), 400, "InvalidInput", ""),
    ("not UTF-8", post(PATH, b'{"title":"\xff"}'), 400, "InvalidInput", ""),
    ("lone surrogate", post(PATH, b'{"title":"\\ud800"}'), 400, "InvalidInput", "title"),
    ("NaN", post(PATH, b'{"title":NaN}'), 400, "InvalidInput", ""),
    ("deep nesting", post(PATH, b"[" * 100_000), 400, "InvalidInput", ""),
    ("wrong type", post(PATH, b'{"title":1}'), 400, "InvalidInput", "title"),
    ("not an object", post(PATH, b"[]"), 400, "InvalidInput", ""),
    ("null", post(PATH, b"null"), 400, "InvalidInput", ""),
    ("no body, so a member is missing", post(PATH), 400, "InvalidInput", "title"),
    ("unknown field", post(PATH, b'{"title":"x","color":1}'), 400, "InvalidInput", "color"),
    ("in a list", post(PATH, b'{"title":"x","files":[{"path":"a"}]}'), 400, "InvalidInput", "files[0].hash"),
    ("id ..", post("/book/..:upload-start", VALID), 400, "InvalidParameter", "id"),
    ("id %2e%2e", post("/book/%2e%2e:upload-start", VALID), 400, "InvalidParameter", "id"),
    ("id with %2F", post("/book/a%2Fb:upload-start", VALID), 400, "InvalidParameter", "id"),
    ("id with a control character", post("/book/a%0Ab:upload-start", VALID), 400, "InvalidParameter", "id"),
    *(
        (f"id with {name}", post(f"/book/a{char}b:upload-start", VALID), 400, "InvalidParameter", "id")
        for name, char in (("U+200B", "%E2%80%8B"), ("U+202E", "%E2%80%AE"), ("U+FEFF", "%EF%BB%BF"))
    ),
    ("id of 300 characters", post(f"/book/{'i' * 300}:upload-start", VALID), 400, "InvalidParameter", "id"),
    ("path not UTF-8", post("/book/%ff:upload-start", VALID), 400, "InvalidParameter", ""),
    ("broken escape", post("/book/%zz:upload-start", VALID), 400, "InvalidParameter", ""),
    ("unknown query", post(f"{PATH}?dry-run=1", VALID), 400, "InvalidParameter", "dry-run"),
    ("Operation-Id *", post(PATH, VALID, "Operation-Id: *"), 400, "InvalidHeader", "Operation-Id"),
    ("Operation-Id >", post(PATH, VALID, "Operation-Id: a.>"), 400, "InvalidHeader", "Operation-Id"),
    ("Operation-Id empty", post(PATH, VALID, "Operation-Id:"), 400, "InvalidHeader", "Operation-Id"),
    ("Operation-Id long", post(PATH, VALID, f"Operation-Id: {'i' * 65}"), 400, "InvalidHeader", "Operation-Id"),
    (
        "Operation-Id twice",
        post(PATH, VALID, "Operation-Id: a", "Operation-Id: a"),
        400,
        "InvalidHeader",
        "Operation-Id",
    ),
    ("no Host", post(PATH, VALID, host=None), 400, "InvalidHeader", "Host"),
    ("bad Host", post(PATH, VALID, host="a,b"), 400, "InvalidHeader", "Host"),
    ("worse Host", post(PATH, VALID, host="a/b c"), 400, "InvalidHeader", "Host"),
    ("no Host in a read", b"GET /status/1 HTTP/1.1\r\n\r\n", 400, "InvalidHeader", "Host"),
    ("no Host in a probe", b"GET /healthz HTTP/1.1\r\n\r\n", 400, "InvalidHeader", "Host"),
    ("half an address", request("GET", "/status/1").replace(b"api.test", b"[::1"), 400, "InvalidHeader", "Host"),
    ("no IPv6", request("GET", "/status/1").replace(b"api.test", b"[127.0.0.1]"), 400, "InvalidHeader", "Host"),
    ("another host", request("GET", "http://evil.test/status/1"), 400, "InvalidHeader", "Host"),
    ("absolute form", request("GET", "http://api.test/status/1"), 404, "OperationNotFound", ""),
    ("absolute form of a submit", post(f"http://api.test{PATH}", b"{"), 400, "InvalidInput", ""),
    ("text", post(PATH, VALID, "Content-Type: text/plain"), 415, "UnsupportedMediaType", "Content-Type"),
    (
        "latin-1",
        post(PATH, VALID, "Content-Type: application/json; charset=latin-1"),
        415,
        "UnsupportedMediaType",
        "Content-Type",
    ),
    (
        "undeclared body",
        request("POST", PATH, f"Content-Length: {len(VALID)}") + VALID,
        415,
        "UnsupportedMediaType",
        "Content-Type",
    ),
    (
        "undeclared body of a cancel",
        request("POST", "/status/1:cancel", "Content-Length: 2") + b"{}",
        415,
        "UnsupportedMediaType",
        "Content-Type",
    ),
    ("gzip", post(PATH, VALID, "Content-Encoding: gzip"), 415, "UnsupportedMediaType", "Content-Encoding"),
    ("too large", post(PATH, b"x" * (4 * 1024 * 1024 + 1)), 413, "PayloadTooLarge", ""),
    ("too large in chunks", chunked(PATH, 5 * 1024 * 1024), 413, "PayloadTooLarge", ""),
    ("unknown action", post("/book/42:nonsense", VALID), 404, "UnknownAction", ""),
    ("unknown resource", post("/cook:upload-start", VALID), 404, "UnknownAction", ""),
    ("unknown action, bad body", post("/book/42:nonsense", b"{"), 404, "UnknownAction", ""),
    ("root", request("GET", "/"), 404, "NotFound", ""),
    ("no such path", request("GET", "/nonsense"), 404, "NotFound", ""),
    ("no such form", post("/book/42", VALID), 404, "NotFound", ""),
    ("upper case action", post("/book/42:Upload", VALID), 404, "NotFound", ""),
    ("long action", post(f"/book/42:{'x' * 41}", VALID), 404, "NotFound", ""),
    ("long resource", post(f"/{'b' * 41}/42:x", VALID), 404, "NotFound", ""),
    ("dots in the path", post("/book/../42:upload-start", VALID), 404, "NotFound", ""),
    ("slash at the end", post(f"{PATH}/", VALID), 404, "NotFound", ""),
    ("reserved resource", post("/metrics/42:upload-start", VALID), 404, "NotFound", ""),
    ("resource reserved for later", post("/runners/42:upload-start", VALID), 404, "NotFound", ""),
    ("well-known", post("/.well-known/42:upload-start", VALID), 404, "NotFound", ""),
    ("read of well-known", request("GET", "/.well-known/agents"), 404, "NotFound", ""),
    ("below a status", request("GET", "/status/1/x"), 404, "NotFound", ""),
    ("no index", request("GET", "/status"), 404, "IndexOff", ""),
    *(
        (f"spelled {path}", request("GET", path), 404, "NotFound", "")
        for path in (
            *(
                "/status//1",
                "//status/1",
                "/status/1/",
                "/status/%31",
                "/%73tatus/1",
                "/status%2F1",
                "/status/1/events/",
            ),
            *(
                "/status/1//events",
                "/status/1/event%73",
                "/status/1%3Acancel",
                "/healthz/",
                "//readyz",
                "/openapi%2Ejson",
            ),
            *("/docs//", "/docs/page.css/", "/docs//page.css", "/%64ocs", "/asyncapi.json/"),
        )
    ),
    *(
        (f"spelled {path}", post(path, VALID), 404, "NotFound", "")
        for path in (
            *(
                "/status/1:cancel/",
                "/status//1:cancel",
                "/status/1%3Acancel",
                "/status/1:c%61ncel",
                "/st%61tus/1:cancel",
            ),
            *("/b%6fok/42:upload-start", "/book/42:uploa%64-start", "/b%6fok:upload-start", "//book/42:upload-start"),
        )
    ),
    ("unknown operation", request("GET", "/status/nonsense"), 404, "OperationNotFound", ""),
    ("status of *", request("GET", "/status/*"), 404, "OperationNotFound", ""),
    ("status of >", request("GET", "/status/>"), 404, "OperationNotFound", ""),
    ("status with dots", request("GET", "/status/a.b"), 404, "OperationNotFound", ""),
    ("status with a line feed", request("GET", "/status/a%0Ab"), 404, "NotFound", ""),
    ("status not UTF-8", request("GET", "/status/%ff"), 404, "NotFound", ""),
    ("long status id", request("GET", f"/status/{'i' * 65}"), 404, "OperationNotFound", ""),
    ("GET an action", request("GET", PATH), 405, "MethodNotAllowed", ""),
    ("PUT an action", request("PUT", PATH), 405, "MethodNotAllowed", ""),
    ("OPTIONS of an action", request("OPTIONS", PATH), 405, "MethodNotAllowed", ""),
    ("PROPFIND an action", request("PROPFIND", PATH), 405, "MethodNotAllowed", ""),
    ("GET a hostile id", request("GET", "/book/..:upload-start"), 400, "InvalidParameter", "id"),
    ("POST a status", post("/status/1", VALID), 405, "MethodNotAllowed", ""),
    ("OPTIONS of a status", request("OPTIONS", "/status/1"), 405, "MethodNotAllowed", ""),
    ("DELETE health", request("DELETE", "/healthz"), 405, "MethodNotAllowed", ""),
    ("PROPFIND health", request("PROPFIND", "/readyz"), 405, "MethodNotAllowed", ""),
    ("POST the document", post("/openapi.json"), 405, "MethodNotAllowed", ""),
    ("POST the events' document", post("/asyncapi.json"), 405, "MethodNotAllowed", ""),
    ("CONNECT", b"CONNECT api.test:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "InvalidHeader", ""),
    ("OPTIONS *", request("OPTIONS", "*"), 404, "NotFound", ""),
    ("two lengths", post(PATH, VALID, "Content-Length: 3"), 400, "InvalidHeader", ""),
    ("length and chunks", post(PATH, VALID, CHUNKED), 400, "InvalidHeader", ""),
    ("no HTTP", b"NONSENSE\r\n\r\n", 400, "InvalidHeader", ""),
    ("raw bytes in the path", request("GET", "/status/\xff"), 400, "InvalidHeader", ""),
    ("endless head", request("GET", "/healthz", f"X-Long: {'x' * 33_000}"), 400, "InvalidHeader", ""),
    ("endless path", request("GET", f"/{'x' * 9_000}"), 400, "InvalidHeader", ""),
    ("broken chunk", request("POST", PATH, CHUNKED) + b"nonsense\r\n", 400, "InvalidHeader", ""),
]


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def limit(link: Connection, max_bytes: int) -> None:
    """Give the journal's stream a limit, which provisioning would not lower."""
    js = link.nc.jetstream()
    info = await js.stream_info(subjects.OPERATIONS_STREAM)
    await js.update_stream(info.config.evolve(max_bytes=max_bytes))


def check_shape(reply: RawResponse, status: int, code: str) -> ErrorBody:
    """Check status, body and headers that the contract has for every error."""
    body = msgspec.json.decode(reply.body, type=ErrorBody, strict=True)
    assert (reply.status, body.error.code) == (status, code)
    assert body.error.message
    assert reply.header("x-ms-error-code") == code
    assert reply.header("Content-Type") == "application/json"
    assert len(reply.header("x-ms-request-id")) == 36
    assert set(json.loads(reply.body)["error"]) <= {"code", "message", "target", "details", "operationId"}
    return body


async def test_every_error(api: Api, link: Connection, subtests: pytest.Subtests) -> None:
    """Each row: status, code, the same code in the header, target, and no event."""
    assert await stored_messages(link) == 0
    for name, sent, status, code, target in TABLE:
        with subtests.test(name):
            body = check_shape(await api.raw(sent), status, code)
            assert body.error.target == target
            assert await stored_messages(link) == 0


async def test_a_wrong_method_gets_the_allowed_ones(api: Api) -> None:
    """The response has `Allow` in the contract's case."""
    for sent, allow in (
        (request("GET", PATH), "POST"),
        (post("/status/1"), "GET, HEAD, DELETE"),
        (request("OPTIONS", "/readyz"), "GET, HEAD"),
    ):
        assert (await api.raw(sent)).header("Allow") == allow


async def test_an_unexpected_failure_leaks_nothing(
    broker: Broker, link: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with the request id, under which the log has the traceback."""

    async def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("opstream_api.operations.submit.Submitter.submit", fail)
    async with serving(broker.url) as api:
        reply = await api.raw(post(PATH, VALID))
    body = check_shape(reply, 500, "InternalError")
    assert b"secret" not in reply.body
    assert reply.header("x-ms-request-id") in body.error.message
    (record,) = [record for record in caplog.records if record.name == "opstream_api.app"]
    assert reply.header("x-ms-request-id") in record.getMessage()
    assert record.exc_info is not None


async def test_a_full_journal_refuses_submits(broker: Broker, link: Connection) -> None:
    """503 at 85 %, from the next measurement on, also for readiness; statuses stay readable."""
    await limit(link, 1024 * 1024)
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        for _ in range(9):
            answer = await api.submit(body={"title": "x" * 100 * 1024})
            assert answer.status_code == 202
        ready = await api.client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "JournalFull")
        count = await stored_messages(link)
        reply = await api.raw(post(PATH, VALID, "Operation-Id: later"))
        body = check_shape(reply, 503, "JournalFull")
        assert int(reply.header("Retry-After")) > 0
        assert body.error.operation_id == "later"
        assert await stored_messages(link) == count
        assert (await api.status(answer.json()["id"])).status_code == 200
        await limit(link, 8 * 1024 * 1024)
        assert (await api.client.get("/readyz")).status_code == 200
        assert (await api.submit(headers={"Operation-Id": "later"})).status_code == 202


async def test_a_journal_that_is_full_at_once_refuses_submits(broker: Broker, link: Connection) -> None:
    """Between two measurements the broker itself refuses."""
    await limit(link, 1024 * 1024)
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        answers = [await api.submit(body={"title": "x" * 100 * 1024}) for _ in range(12)]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert {(answer.status_code, answer.headers["x-ms-error-code"]) for answer in refused} == {(503, "JournalFull")}
    assert all(answer.json()["error"]["operationId"] and answer.headers["Retry-After"] for answer in refused)


async def test_a_body_beyond_the_brokers_limit_is_a_payload(broker: Broker, link: Connection) -> None:
    """A body above the broker's `max_payload` is stored in parts; only the service's own limit refuses one."""
    await announce_action(link, spec())
    async with serving(broker.url, body_limit=2_000_000) as api:
        assert (await api.submit(body={"title": "x" * 1_500_000})).status_code == 202
        answer = await api.submit(body={"title": "x" * 2_000_000})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PayloadTooLarge")
        assert (await api.submit()).status_code == 202
