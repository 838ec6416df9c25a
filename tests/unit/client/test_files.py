"""Uploads, downloads and erasure of both clients, on real sockets with a failing server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from opstream import AsyncOperationsClient, InvalidRequest, OperationsClient, RequestRefused, UnexpectedAnswer, Upload
from opstream.client.files import upload_source
from tests.support.client.scripted_server import Accept, Reset, ScriptedAnswer, ScriptedServer, answer, json_answer

pytestmark = pytest.mark.unit

DATA = bytes(range(256)) * 3_000
SHA256 = hashlib.sha256(DATA).hexdigest()
PLACE = {"operationId": "x", "name": "scan.tif", "href": "http://elsewhere.test/p?token=t", "maxSize": 1_000_000}
UPLOADED = {
    "operationId": "x",
    "name": "scan.tif",
    "mediaType": "image/tiff",
    "size": len(DATA),
    "sha256": SHA256,
    "claim": "claim-1",
    "expiresAt": "2026-12-01T00:00:00Z",
}
FILE = {"name": "proof.pdf", "mediaType": "application/pdf", "size": len(DATA), "sha256": SHA256}
STATUS = {"id": "x", "status": "Succeeded", "attachments": [{**FILE, "href": "/status/x/payloads/abc"}]}
UPLOAD = msgspec.convert(UPLOADED, Upload)

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls one of the two clients of a server, with a token."""

    def calling(server: ScriptedServer, method: str, /, *arguments: Any, **options: Any) -> Any:
        if request.param == "sync":
            with (
                httpx.Client(trust_env=False, cookies={"session": "1"}, headers={"X-Own": "1"}) as http,
                OperationsClient(server.url, http=http, token="ops_1") as client,
            ):
                return getattr(client, method)(*arguments, **options)

        async def run() -> Any:
            async with (
                httpx.AsyncClient(trust_env=False, cookies={"session": "1"}, headers={"X-Own": "1"}) as http,
                AsyncOperationsClient(server.url, http=http, token="ops_1") as client,
            ):
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(run())

    return calling


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.tif"
    path.write_bytes(DATA)
    return path


def cut(body: bytes, at: int, *, status: int = 200, **headers: Any) -> ScriptedAnswer:
    """A response that breaks off after some bytes of its body."""
    whole = answer(status, body, **headers).content
    return ScriptedAnswer(whole[: len(whole) - len(body) + at])


def test_an_upload(call: Call, scan: Path) -> None:
    """A place is asked for, the file goes to the client's own URL with its credentials, and the submit names it."""
    steps: list[tuple[int, int]] = []
    with ScriptedServer(json_answer(201, PLACE), Reset(), json_answer(201, UPLOADED), Accept()) as server:
        uploaded = call(
            server,
            "upload",
            scan,
            media_type="image/tiff",
            operation_id="x",
            on_progress=lambda done, size: steps.append((done, size)),
        )
        operation = call(server, "submit", "book:scan", uploads=[uploaded])
    assert (uploaded.claim, uploaded.sha256, operation.id) == ("claim-1", SHA256, "x")
    ask, broken, put, submit = server.heard
    assert (ask.method, ask.path, ask.body) == ("POST", "/payloads", b'{"name":"scan.tif"}')
    assert (put.method, put.path, put.body) == ("PUT", "/payloads/x/scan.tif", DATA)
    assert broken.body == DATA
    assert (put.headers["content-type"], put.headers["content-length"]) == ("image/tiff", str(len(DATA)))
    assert "transfer-encoding" not in put.headers
    assert {one.headers["authorization"] for one in server.heard} == {"Bearer ops_1"}
    assert submit.headers["operation-upload"] == "claim-1"
    assert steps[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        ([json_answer(201, {**PLACE, "maxSize": 10})], InvalidRequest, "has 768,000 bytes, and this service takes 10"),
        ([json_answer(201, PLACE), json_answer(201, {**UPLOADED, "sha256": "0"})], UnexpectedAnswer, "other bytes"),
        (
            [json_answer(201, PLACE), json_answer(413, {"error": {"code": "PayloadTooLarge", "message": "no"}})],
            RequestRefused,
            "PayloadTooLarge",
        ),
        ([answer(200, b"<html>")], UnexpectedAnswer, "not from opstream"),
    ],
)
def test_an_upload_that_fails(
    call: Call, scan: Path, answers: list[ScriptedAnswer], error: type[Exception], text: str
) -> None:
    """What the service does not take, or has not got as it was, is an error that says so."""
    with ScriptedServer(*answers) as server, pytest.raises(error, match=text):
        call(server, "upload", scan, operation_id="x")
    assert server.is_used_up


def test_no_upload(call: Call, tmp_path: Path) -> None:
    """What is no file, has no name, or is not of the submit's operation is not sent."""
    with ScriptedServer() as server:
        for source, options, text in [
            (tmp_path / "none.tif", {}, "can't be read"),
            (tmp_path, {"name": "a"}, "not a regular file"),
            (b"data", {}, "bytes have no name"),
            (b"data", {"name": "../a"}, "file name"),
            (b"data", {"name": "a", "media_type": "tiff"}, "media type"),
        ]:
            with pytest.raises(InvalidRequest, match=text):
                call(server, "upload", source, **options)
        with pytest.raises(InvalidRequest, match="was uploaded for operation x, and this submit is y"):
            call(server, "submit", "book:scan", operation_id="y", uploads=[UPLOAD])
    assert not server.refused


def test_a_file_that_grows(scan: Path) -> None:
    """A file that is written meanwhile is not uploaded as something between."""
    source = upload_source.UploadSource(scan, lambda: None, None)
    with scan.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InvalidRequest, match="has changed"):
        list(source.pieces())


def test_a_download_is_resumed(call: Call, tmp_path: Path) -> None:
    """A download goes on behind the last byte that came, and lies at its place once it is whole."""
    rest = DATA[500_000:]
    between = f"bytes 500000-{len(DATA) - 1}/{len(DATA)}"
    steps: list[tuple[int, int]] = []
    with (
        ScriptedServer(json_answer(200, STATUS), cut(DATA, 9), answer(206, rest, content_range=between)) as server,
        pytest.raises(UnexpectedAnswer, match="not from opstream"),
    ):
        call(server, "download", "x", "proof.pdf", tmp_path)
    with ScriptedServer(json_answer(200, STATUS), cut(DATA, 9), answer(200, DATA)) as server:
        assert call(server, "download", "x", "proof.pdf", tmp_path).read_bytes() == DATA
    with ScriptedServer(
        json_answer(200, STATUS), cut(DATA, 500_000), answer(206, rest, content_range=between)
    ) as server:
        path = call(
            server, "download", "x", "proof.pdf", tmp_path, on_progress=lambda done, size: steps.append((done, size))
        )
    assert (path, path.read_bytes()) == (tmp_path / "proof.pdf", DATA)
    assert [one.path for one in server.heard] == ["/status/x", "/status/x/payloads/abc", "/status/x/payloads/abc"]
    assert [one.headers.get("range") for one in server.heard] == [None, None, "bytes=500000-"]
    assert steps[-1] == (len(DATA), len(DATA))
    assert [one.name for one in tmp_path.iterdir()] == ["proof.pdf"]


def test_a_download_that_is_no_use(call: Call, tmp_path: Path) -> None:
    """Damaged bytes, a name that is none, and a place that is no file change nothing on this machine."""
    (tmp_path / "old.pdf").write_bytes(b"old")
    with (
        ScriptedServer(json_answer(200, STATUS), answer(200, b"x" * len(DATA))) as server,
        pytest.raises(UnexpectedAnswer, match="other bytes came than were stored"),
    ):
        call(server, "download", "x", "proof.pdf", tmp_path / "old.pdf")
    with ScriptedServer(*[json_answer(200, STATUS)] * 3) as server:
        with pytest.raises(InvalidRequest, match=r"has no file 'a\.txt': it has 'proof\.pdf'"):
            call(server, "download", "x", "a.txt", tmp_path)
        with pytest.raises(InvalidRequest, match="not a regular file"):
            call(server, "download", "x", "proof.pdf", "/dev/null")
        with pytest.raises(InvalidRequest, match="can't be written"):
            call(server, "download", "x", "proof.pdf", tmp_path / "none" / "a.pdf")
    assert [one.name for one in tmp_path.iterdir()] == ["old.pdf"]
    assert (tmp_path / "old.pdf").read_bytes() == b"old"


def test_a_download_without_an_end(call: Call, tmp_path: Path) -> None:
    """Of what is more than the file has nothing is written: it could fill the disk."""
    done: list[int] = []
    with (
        ScriptedServer(json_answer(200, STATUS), answer(200, DATA * 20)) as server,
        pytest.raises(UnexpectedAnswer, match="other bytes came than were stored"),
    ):
        call(server, "download", "x", "proof.pdf", tmp_path, on_progress=lambda size, _: done.append(size))
    assert max(done) <= len(DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_download_from_the_store(call: Call, tmp_path: Path) -> None:
    """A store to which the service sends gets no credentials, cookies or headers of the client; it may break, too."""
    rest = {"content_range": f"bytes 9-{len(DATA) - 1}/{len(DATA)}"}
    with ScriptedServer(cut(DATA, 9), answer(206, DATA[9:], **rest)) as store:
        there = answer(307, location=f"{store.url}/bucket/key?signature=1")
        with ScriptedServer(json_answer(200, STATUS), there, there) as server:
            path = call(server, "download", "x", "proof.pdf", tmp_path)
    assert path.read_bytes() == DATA
    assert [one.path for one in store.heard] == ["/bucket/key?signature=1"] * 2
    for one in store.heard:
        assert not {"authorization", "cookie", "x-own"} & set(one.headers)
    assert store.heard[1].headers["range"] == "bytes=9-"


def test_a_store_that_is_none(call: Call, tmp_path: Path) -> None:
    """A URL with credentials, or of another scheme, is not followed; a store that refuses is named."""
    for location in ("ftp://store.test/a", "http://a:b@127.0.0.1/", "", "/relative"):
        with (
            ScriptedServer(json_answer(200, STATUS), answer(307, location=location)) as server,
            pytest.raises(UnexpectedAnswer, match="without TLS, or to no URL"),
        ):
            call(server, "download", "x", "proof.pdf", tmp_path)
    with (
        ScriptedServer(answer(403, b"expired")) as store,
        ScriptedServer(json_answer(200, STATUS), answer(307, location=f"{store.url}/a")) as server,
        pytest.raises(UnexpectedAnswer, match="answered 403: download it again"),
    ):
        call(server, "download", "x", "proof.pdf", tmp_path)


def test_an_erasure(call: Call) -> None:
    """One DELETE with the reason; a refusal has the service's words."""
    with ScriptedServer(
        answer(204), json_answer(409, {"error": {"code": "OperationOpen", "message": "cancel it"}})
    ) as server:
        assert call(server, "erase", "x", reason="ticket 4711 & more") is None
        with pytest.raises(RequestRefused, match="OperationOpen: cancel it"):
            call(server, "erase", "x")
        with pytest.raises(InvalidRequest, match="shorten it"):
            call(server, "erase", "x", reason="é" * 251)
    assert [(one.method, one.path) for one in server.heard] == [
        ("DELETE", "/status/x?reason=ticket+4711+%26+more"),
        ("DELETE", "/status/x"),
    ]
