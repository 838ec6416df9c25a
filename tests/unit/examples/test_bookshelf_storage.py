"""The store of a URL, and the actions on the default folder and on S3 over real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import httpx
import msgspec
import pytest

from bookshelf import actions
from bookshelf.records import Book, UploadFinish, UploadStart, UploadStarted
from bookshelf.storage import InvalidStorageUrl, LocalFolder, S3Bucket, open_storage
from opstream import ActionContext, ActionError
from tests.unit.examples.test_bookshelf_kit import local_path

pytestmark = pytest.mark.unit

CONTENT = {"a b.md": b"one", "big": b"0123456789abcdef" * 350_000, "empty": b"", "ü/%41#+&.md": b"x"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test opens its own shelf."""
    monkeypatch.delenv("BOOKSHELF_URL", raising=False)
    actions.open_shelf.cache_clear()
    yield
    actions.open_shelf.cache_clear()


class MiniS3:
    """The part of S3 that a shelf needs, without signatures; objects and unfinished uploads are in dicts."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet an answer, or each waits for a delayed acknowledgement

            def log_message(self, *_args: Any) -> None:
                """Log nothing."""

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer, headers = outer.answer(self.command, self.path, dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        key = unquote(parts.path).removeprefix("/books").removeprefix("/")
        lower = {name.lower(): value for name, value in headers.items()}
        flags = " ".join(sorted({"uploads", "uploadId", "delete", "list-type", "X-Amz-Signature"} & query.keys()))
        self.requests.append(f"{method} {flags}".strip())
        if method == "GET" and "list-type" in query:
            return 200, self.listing(query.get("prefix", ""), query.get("delimiter", "")), {}
        if method == "GET":
            if key not in self.objects:
                return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
            return 200, self.objects[key], self.meta(key)
        if method == "POST" and "uploads" in query:
            upload = f"u{len(self.requests)}"
            self.parts[upload] = {}
            return 200, _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"), {}
        if method == "PUT" and "uploadId" in query:
            self.parts[query["uploadId"]][int(query["partNumber"])] = body
            return 200, b"", {"ETag": '"part"'}
        if method == "POST" and "uploadId" in query:
            self.objects[key] = b"".join(part for _, part in sorted(self.parts.pop(query["uploadId"]).items()))
            return 200, _xml("CompleteMultipartUploadResult", f"<ETag>{self.meta(key)['ETag']}</ETag>"), {}
        if method == "DELETE" and "uploadId" in query:
            self.parts.pop(query["uploadId"], None)
            return 204, b"", {}
        if method == "POST" and "delete" in query:
            keys = [node.text or "" for node in ET.fromstring(body).iter() if node.tag.rpartition("}")[2] == "Key"]
            for each in keys:
                self.objects.pop(each, None)
            return 200, _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(k)}</Key></Deleted>" for k in keys)), {}
        if method == "PUT" and "x-amz-copy-source" in lower:
            source = unquote(lower["x-amz-copy-source"]).removeprefix("/").removeprefix("books/")
            if source not in self.objects:
                return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
            self.objects[key] = self.objects[source]
            return 200, _xml("CopyObjectResult", f"<ETag>{self.meta(key)['ETag']}</ETag>"), {}
        assert method == "PUT", (method, target)
        if lower.get("if-none-match") == "*" and key in self.objects:
            return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
        self.objects[key] = body
        return 200, b"", {"ETag": self.meta(key)["ETag"]}

    def meta(self, key: str) -> dict[str, str]:
        etag = hashlib.md5(self.objects[key]).hexdigest()
        return {"ETag": f'"{etag}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}

    def listing(self, prefix: str, delimiter: str) -> bytes:
        found, folders = [], set()
        for key in sorted(self.objects):
            if key.startswith(prefix):
                head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                if cut:
                    folders.add(prefix + head + delimiter)
                else:
                    found.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
                        f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                    )
        prefixes = [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
        return _xml("ListBucketResult", "".join(found + prefixes) + "<IsTruncated>false</IsTruncated>")


def _xml(name: str, inner: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inner}</{name}>'.encode()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniS3]:
    server = MiniS3()
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "BOOKSHELF_URL": "s3://books/my%20shelf/x",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.server.shutdown()
    thread.join()
    server.server.server_close()


async def start(book: str, content: dict[str, bytes], operation: str) -> UploadStarted:
    request = {
        "title": "T",
        "files": [{"path": path, "sha256": hashlib.sha256(data).hexdigest()} for path, data in content.items()],
    }
    context = ActionContext(operation_id=operation, resource_id=book)
    return await actions.upload_start(msgspec.convert(request, UploadStart), context)


async def finish(started: UploadStarted, operation: str) -> Book:
    request = {"transactionId": started.transaction_id, "metadata": {"n": 1}}
    context = ActionContext(operation_id=operation, resource_id=started.book_id)
    return await actions.upload_finish(msgspec.convert(request, UploadFinish), context)


async def test_on_s3(s3: MiniS3) -> None:
    """Two versions by presigned PUTs; a wrong hash commits nothing; the second version's files alone remain."""
    started = await start("My Book", CONTENT, "start-1")
    assert started.upload_url.startswith("s3://books/my%20shelf/x/books/~")
    assert [file.path for file in started.files_to_upload] == list(CONTENT)
    async with httpx.AsyncClient() as client:
        for file in started.files_to_upload:
            assert file.upload_url.startswith(f"{s3.url}/books/my%20shelf/x/books/~")
            assert "X-Amz-Signature=" in file.upload_url
            (await client.put(file.upload_url, content=CONTENT[file.path][::-1])).raise_for_status()
        with pytest.raises(ActionError, match="WrongHash") as caught:
            await finish(started, "finish-0")
        assert caught.value.target == "files[0].sha256"
        assert s3.parts == {}
        assert not [key for key in s3.objects if "/files/" in key]
        for file in started.files_to_upload:
            (await client.put(file.upload_url, content=CONTENT[file.path])).raise_for_status()
        book, same = await asyncio.gather(finish(started, "finish-1"), finish(started, "finish-1"))
        assert (book.version, [file.size for file in book.files]) == (1, [3, 5_600_000, 0, 1])
        assert book == same == await finish(started, "finish-1")

        second = {**CONTENT, "a b.md": b"changed", "new": b"n"}
        s3.requests.clear()
        started = await start("My Book", second, "start-2")
        assert started.files_unchanged == 3
        assert s3.requests.count("PUT") == 4  # the transaction, and three copies that S3 makes itself
        for file in started.files_to_upload:
            (await client.put(file.upload_url, content=second[file.path])).raise_for_status()
    assert (await finish(started, "finish-2")).version == 2
    with pytest.raises(ActionError, match="TransactionFinished"):
        await finish(started, "finish-3")
    files = {key: data for key, data in s3.objects.items() if not key.endswith(".json")}
    folder = started.upload_url.removeprefix("s3://books/").replace("/uploads/", "/files/")
    assert files == {unquote(folder) + path: data for path, data in second.items()}
    assert s3.parts == {}


async def test_on_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without configuration, everything lies below the working directory."""
    monkeypatch.chdir(tmp_path)
    started = await start("new", {"a": b"1"}, "start-1")
    assert started.upload_url.startswith((tmp_path / ".opstream/bookshelf").as_uri() + "/books/book-")
    local_path(started.files_to_upload[0].upload_url).write_bytes(b"1")
    book = await finish(started, "finish-1")
    assert msgspec.to_builtins(book) == {
        "bookId": started.book_id,
        "version": 1,
        "title": "T",
        "metadata": {"n": 1},
        "files": [{"path": "a", "sha256": hashlib.sha256(b"1").hexdigest(), "size": 1}],
        "publishedAt": msgspec.to_builtins(book.published_at),
    }


async def test_the_environment_is_read_by_the_first_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable URL fails the action, not the import; the next action tries again."""
    monkeypatch.setenv("BOOKSHELF_URL", "ftp://somewhere")
    with pytest.raises(InvalidStorageUrl, match="must be file:///absolute/folder or s3://bucket/prefix"):
        await start("42", {"a": b""}, "start-1")


NO_PLACES = ["", "x", "/tmp/x", "file:", "file://host/x", "file://./x", "file:x", "file:///x#1", "file:///dev/null/x"]
NO_PLACES += ["s3:", "s3://", "s3:///x", "s3://b/x?y=z", "s3://b/../x", "gs://b/x", "http://h/x"]


@pytest.mark.parametrize("url", NO_PLACES)
def test_invalid_storage_urls(url: str) -> None:
    """The message names the URL."""
    with pytest.raises(InvalidStorageUrl) as caught:
        open_storage(url)
    assert repr(url) in str(caught.value)


def test_urls(tmp_path: Path) -> None:
    """URLs of files are percent-encoded and decoded."""
    folder = tmp_path / "a b" / "#1"
    local = open_storage(folder.as_uri())
    assert isinstance(local, LocalFolder)
    assert folder.is_dir()
    assert local.folder_url("books/x y") == folder.as_uri() + "/books/x%20y/"
    for url in ["s3://bucket/a%20b", "s3://bucket/a%20b/", "s3://bucket/a b"]:
        bucket = open_storage(url)
        assert isinstance(bucket, S3Bucket)
        assert bucket.folder_url("c") == "s3://bucket/a%20b/c/"
    assert open_storage("s3://bucket").folder_url("c") == "s3://bucket/c/"
