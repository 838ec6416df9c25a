"""Both clients on real sockets, with a failing server. `test_flows.py` tests their decisions."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import msgspec
import pytest

import opstream
from opstream import (
    AsyncOperationsClient,
    OperationCanceled,
    OperationFailed,
    OperationsClient,
    OperationsError,
    RequestRefused,
    ServiceUnavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from tests.support.client.scripted_server import (
    Accept,
    Drip,
    Reset,
    Script,
    ScriptedAnswer,
    ScriptedServer,
    Silence,
    answer,
    json_answer,
    refusing,
    stream,
)

pytestmark = pytest.mark.unit

DIRECT: dict[str, Any] = {"trust_env": False, "verify": False}
"""Options for an httpx client without proxies of the environment and without certificates."""
DONE = json_answer(200, {"id": "x", "status": "Succeeded", "result": {"n": 1}})
AWAY = answer(503, b"<html>no healthy upstream</html>", content_type="text/html", retry_after=0)


def event(position: int, name: str, **data: Any) -> bytes:
    """One event of a stream."""
    cloud_event = {
        "specversion": "1.0",
        "id": f"event-{position}",
        "source": "test",
        "type": f"opstream.action.{name}.v1",
        "subject": "x",
        "time": "2026-11-24T10:00:00Z",
        "datacontenttype": "application/json",
        "position": position,
        "previoushash": "",
        "data": data,
    }
    return f"id: {position}\ndata: ".encode() + msgspec.json.encode(cloud_event) + b"\n\n"


class Either:
    """One of the two clients, with the calls of the sync one."""

    def __init__(self, is_async: bool, url: str, **options: Any) -> None:
        self._is_async = is_async
        self._url = url
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: asyncio.run(self._call(name, arguments, options))

    async def _call(self, name: str, arguments: Any, options: Any) -> Any:
        if self._is_async:
            async with AsyncOperationsClient(self._url, http=self._http(httpx.AsyncClient), **self._options) as client:
                if name == "events":
                    return [one async for one in client.events(*arguments, **options)]
                return await getattr(client, name)(*arguments, **options)
        with OperationsClient(self._url, http=self._http(httpx.Client), **self._options) as client:
            found = getattr(client, name)(*arguments, **options)
            return list(found) if name == "events" else found

    def _http(self, make: Any) -> Any:
        return make(**DIRECT)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    "trouble",
    [
        Reset(),
        Reset(b"HTTP/1.1 202 Acc"),
        ScriptedAnswer(b""),
        ScriptedAnswer(b"HTTP/1.1 202 Accepted\r\nContent-Length: 90\r\n\r\n{"),
        ScriptedAnswer(b"SSH-2.0-OpenSSH\r\n"),
        answer(200, b"not gzip", content_encoding="gzip"),
        AWAY,
        answer(502, b"<html>"),
    ],
    ids=["reset", "reset in answer", "closed", "cut", "no HTTP", "garbled", "503", "502"],
)
def test_a_submit_survives(is_async: bool, trouble: Script) -> None:
    """After any failure of the first try, the second has the same id and the same bytes."""
    with ScriptedServer(trouble, Accept()) as server:
        operation = Either(is_async, server.url).submit("book/42:upload-start", {"a": 1})
        first, second = server.heard
        given = first.headers["operation-id"]
        assert (operation.id, operation.url) == (given, f"{server.url}/status/{given}")
        assert (first.method, first.path, first.body) == ("POST", "/book/42:upload-start", b'{"a":1}')
        assert (second.path, second.body) == (first.path, first.body)
        assert second.headers["operation-id"] == given
        assert first.headers["user-agent"] == f"opstream/{opstream.__version__}"
        assert server.is_used_up


def test_each_submit_has_an_id_of_its_own(is_async: bool) -> None:
    """Each id is a UUIDv7, and later ids sort after earlier ones."""
    with ScriptedServer(Accept(), Accept()) as server:
        client = Either(is_async, server.url)
        client.submit("book:reindex")
        client.submit("book:reindex")
        first, second = (heard.headers["operation-id"] for heard in server.heard)
        assert first < second
        assert first[14] == "7"


def test_a_silent_service(is_async: bool) -> None:
    """The call fails at its timeout, with the id to submit again."""
    with ScriptedServer(Silence()) as server:
        begin = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="no response in time") as caught:
            Either(is_async, server.url).submit("book:reindex", operation_id="mine", timeout=0.1)
        assert time.monotonic() - begin < 5
        assert caught.value.operation_id == "mine"


def test_an_answer_that_never_ends(is_async: bool) -> None:
    """A byte now and then does not extend the call's timeout."""
    with ScriptedServer(Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")) as server:
        begin = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="no response in time"):
            Either(is_async, server.url).status("x", timeout=0.5)
        assert time.monotonic() - begin < 5


def test_no_service(is_async: bool) -> None:
    """The error says that there is no connection; `on_retry` is called before each further try."""
    troubles: list[tuple[str, float]] = []
    with refusing() as url, pytest.raises(ServiceUnavailable, match=r"no connection: .*: ask again") as caught:
        Either(is_async, url, on_retry=lambda *trouble: troubles.append(trouble)).status("x", timeout=1.0)
    assert url in str(caught.value)
    assert troubles
    assert all(what.endswith(": check that the service runs there, and that the URL is right") for what, _ in troubles)
    assert all("no connection" in what and 0 < pause < 1 for what, pause in troubles)


def test_no_http_there(is_async: bool) -> None:
    """A program that speaks another protocol, as a broker does: the error says so, and what to check."""
    with ScriptedServer(ScriptedAnswer(b"INFO {}\r\n"), ScriptedAnswer(b"INFO {}\r\n")) as server:
        with pytest.raises(ServiceUnavailable, match=r"no HTTP response: .*: check that the service runs") as caught:
            Either(is_async, server.url).status("x", timeout=0.1)
        assert "a service with TLS needs https://" in str(caught.value)


def test_no_tls_there(is_async: bool) -> None:
    """TLS where the service has none: the error says so, and what to check."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"https://127.0.0.1:{server.server_port}"
            with pytest.raises(
                ServiceUnavailable, match=r"no TLS connection: .*: check that the service runs"
            ) as caught:
                Either(is_async, url).status("x", timeout=1.0)
        finally:
            server.shutdown()
    assert "a service without TLS needs http://" in str(caught.value)


def test_redirects_are_not_followed(is_async: bool) -> None:
    """Redirects are not followed, even by an httpx client that is set to follow them."""
    with ScriptedServer() as other, ScriptedServer(answer(307, location=f"{other.url}/book:reindex")) as server:
        client = OperationsClient(server.url, http=httpx.Client(**DIRECT, follow_redirects=True))
        call = Either(is_async, server.url).submit if is_async else client.submit
        with pytest.raises(UnexpectedAnswer, match=other.url):
            call("book:reindex")
        assert other.heard == []


def test_headers_and_credentials(is_async: bool) -> None:
    """Headers and credentials go with every request, only to the service."""
    with ScriptedServer(Accept({"operation_location": "http://evil.test/x"}), DONE) as server:
        client = Either(is_async, server.url.replace("//", "//ann:secret@"), headers={"X-Tenant": "a"})
        operation = client.submit("book:reindex", operation_id="x")
        assert operation.url == f"{server.url}/status/x"
        assert client.wait(operation).status == "Succeeded"
        assert [heard.headers["authorization"] for heard in server.heard] == ["Basic YW5uOnNlY3JldA=="] * 2
        assert [heard.headers["x-tenant"] for heard in server.heard] == ["a"] * 2


class Counted(msgspec.Struct):
    n: int


def test_a_result(is_async: bool) -> None:
    """A result is decoded as its type, after an outage."""
    with ScriptedServer(
        Reset(), AWAY, json_answer(200, {"id": "x", "status": "Running"}, retry_after=0), DONE
    ) as server:
        assert Either(is_async, server.url).result("x", Counted) == Counted(1)
        assert [heard.path for heard in server.heard] == ["/status/x"] * 4
        assert server.is_used_up


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            [json_answer(200, {"id": "x", "status": "Failed", "error": {"code": "Bad", "message": "it is"}})],
            OperationFailed,
        ),
        ([json_answer(200, {"id": "x", "status": "Canceled"}), json_answer(200, {"value": []})], OperationCanceled),
        ([json_answer(404, {"error": {"code": "OperationNotFound", "message": "no"}})], RequestRefused),
        ([json_answer(200, {"id": "x", "status": "Running"})], WaitTimeout),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_no_result(is_async: bool, script: list[Script], error: type[OperationsError]) -> None:
    """Each kind of missing result has its own error."""
    with ScriptedServer(*script) as server, pytest.raises(error):
        Either(is_async, server.url).result("x", Counted, timeout=0.1)


def test_events(is_async: bool) -> None:
    """A stream that is reset, cut and then empty is resumed, and each event comes once."""
    first, second = event(1, "progressed", percent=0.0), event(2, "progressed", percent=1.0)
    last = event(3, "canceled", reason="r")
    script = [
        Reset(stream(b"retry: 1\n\n", first, second[:-9])),
        ScriptedAnswer(stream(first + second)),
        AWAY,
        ScriptedAnswer(stream()),
        ScriptedAnswer(stream(last) + b"0\r\n\r\n"),
    ]
    with ScriptedServer(*script) as server:
        events = Either(is_async, server.url).events("x", follow=True)
        assert [(one.position, one.name) for one in events] == [(1, "progressed"), (2, "progressed"), (3, "canceled")]
        assert events[-1].data.reason == "r"
        asked = [heard.headers.get("last-event-id") for heard in server.heard]
        assert asked == [None, *asked[1:2], "2", "2", "2"]
        assert server.is_used_up


def test_leaving_a_stream() -> None:
    """Closing the generator closes the connection."""
    with ScriptedServer(Silence(stream(event(1, "progressed", percent=0.0)))) as server:
        client = OperationsClient(server.url, http=httpx.Client(**DIRECT))
        with contextlib.closing(client.events("x", follow=True)) as events:
            assert next(events).position == 1
        assert server.left.wait(5)


async def test_leaving_an_async_stream() -> None:
    """Closing the async generator closes the connection."""
    with ScriptedServer(Silence(stream(event(1, "progressed", percent=0.0)))) as server:
        client = AsyncOperationsClient(server.url, http=httpx.AsyncClient(**DIRECT))
        async with contextlib.aclosing(client.events("x", follow=True)) as events:
            assert (await anext(events)).position == 1
        assert await asyncio.to_thread(server.left.wait, 5)


async def test_async_callbacks() -> None:
    """`on_change` and `on_retry` may be async functions."""
    told: list[Any] = []

    async def on_change(operation: opstream.Operation) -> None:
        await asyncio.sleep(0)
        told.append(operation.status)

    async def on_retry(trouble: str, pause: float) -> None:
        await asyncio.sleep(0)
        told.append(pause)

    with ScriptedServer(AWAY, DONE) as server:
        async with AsyncOperationsClient(server.url, http=httpx.AsyncClient(**DIRECT), on_retry=on_retry) as client:
            await client.wait("x", on_change=on_change)
    pause, status = told
    assert (0 < pause < 1, status) == (True, "Succeeded")


async def test_a_call_that_is_cancelled() -> None:
    """A cancelled call ends at once."""
    with ScriptedServer(Silence()) as server:
        async with AsyncOperationsClient(server.url, http=httpx.AsyncClient(**DIRECT)) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.wait("x")


def test_a_given_http_client_stays_open() -> None:
    """The client closes only what it has opened."""
    http = httpx.Client(**DIRECT)
    with OperationsClient("http://api.test", http=http):
        pass
    assert not http.is_closed
    http.close()


def test_importing_opstream_stays_light() -> None:
    """`import opstream` loads no HTTP library and no command line; the client's names load it."""
    code = (
        "import sys, opstream; heavy = {'httpx', 'click', 'nats', 'litestar', 'opstream.client'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "from opstream import OperationsClient; assert 'httpx' in sys.modules; "
        "missing = [name for name in opstream.__all__ if not hasattr(opstream, name)]; assert not missing, missing"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = opstream.nothing
