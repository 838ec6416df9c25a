"""Inputs and results that are too large for an event, and files of operations: from HTTP to the handler and back."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_payloads.documents import Documents
from opstream_payloads.drivers import open_store
from opstream_payloads.location import StoreLocation
from opstream_payloads.payloads import Payloads
from opstream_payloads.store import PayloadStore
from opstream_runner.authoring.action import collect_actions
from opstream_runner.runner import Runner
from opstream_schemas.events import Attached, Requested, Succeeded
from opstream_schemas.operation.state import Status
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM
from opstream_schemas.payloads.payload_ref import PayloadKey
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.payloads import payload_actions
from tests.support.payloads.streams import numbered_bytes
from tests.support.runner.stage import RunnerStage
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

LARGE = 600_000
"""Characters of a text that is too large for an event."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def location(tmp_path: Path) -> StoreLocation:
    """A folder that the API and the runner share."""
    return StoreLocation(folder=str(tmp_path / "payloads"))


@pytest.fixture
async def store(link: Connection, location: StoreLocation) -> PayloadStore:
    """The store of the runner."""
    return await open_store(location, link, utc_now)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def runner(stage: RunnerStage, store: PayloadStore) -> AsyncIterator[Runner]:
    """A runner with the store."""
    payloads = Payloads(store, new_id)
    dependencies = stage.dependencies(result_limit=4 * 1024 * 1024, documents=Documents(payloads), payloads=payloads)
    async with stage.runner(collect_actions([payload_actions]), dependencies=dependencies) as runner:
        yield runner


@pytest.fixture
async def api(broker: Broker, runner: Runner, location: StoreLocation) -> AsyncIterator[Api]:
    """The API with the same store."""
    async with serving(broker.url, payload_store=location) as api:
        yield api


async def run(api: Api, action: str, given: Any, operation_id: str = "op-1") -> httpx.Response:
    """Submit, and wait for the end."""
    accepted = await api.submit(f"/big:{action}", given, {"Operation-Id": operation_id})
    assert accepted.status_code == 202, accepted.text
    return await api.wait(operation_id, 20)


async def test_there_and_back(api: Api, stage: RunnerStage) -> None:
    """A large input reaches the handler, its large result the client; the events have claim checks, and a status shows
    nothing of that."""
    text = "".join(chr(ord("a") + number % 26) for number in range(LARGE))
    answer = await run(api, "echo", {"text": text})
    assert answer.json()["status"] == "Succeeded"
    assert answer.json()["result"] == {"text": text}
    assert "attachments" not in answer.json()

    requested, *_, succeeded = await stage.events("op-1")
    assert (requested.type, succeeded.type) == ("opstream.action.requested.v3", "opstream.action.succeeded.v2")
    assert isinstance(requested.data, Requested)
    assert isinstance(succeeded.data, Succeeded)
    for document, payload in (
        (requested.data.input, requested.data.input_payload),
        (succeeded.data.result, succeeded.data.result_payload),
    ):
        assert document is msgspec.UNSET
        assert payload is not None
        assert payload.size == len(text) + len('{"text":""}')
        assert payload.sha256 == hashlib.sha256(msgspec.json.encode({"text": text})).hexdigest()
        found = await api.client.get(f"/status/op-1/payloads/{payload.key.unique}")
        assert found.json() == {"text": text}
        assert found.headers["content-type"] == "application/json"


async def test_what_fits_stays_in_its_event(api: Api, stage: RunnerStage) -> None:
    """A small document is stored as ever: of version 1, and in no store."""
    answer = await run(api, "echo", {"text": "x" * 200_000})
    assert answer.json()["status"] == "Succeeded"
    requested, *_, succeeded = await stage.events("op-1")
    assert (requested.type, succeeded.type) == ("opstream.action.requested.v1", "opstream.action.succeeded.v1")


async def test_the_same_large_request_again(api: Api, store: PayloadStore, stage: RunnerStage) -> None:
    """A repetition is the same operation, also with its numbers and members written in another way, and stores nothing
    a second time; another one is refused."""
    given = {"text": "y" * LARGE}
    first = await run(api, "hash", given)
    assert first.json()["result"] == hashlib.sha256(given["text"].encode()).hexdigest()
    again = await run(api, "hash", given)
    assert again.json() == first.json()
    body = b'{ "text" :  "' + given["text"].encode() + b'"}'
    headers = {"Operation-Id": "op-1", "Content-Type": "application/json"}
    spaced = await api.client.post("/big:hash", content=body, headers=headers)
    assert spaced.status_code == 202
    other = await api.submit("/big:hash", {"text": "z" * LARGE}, {"Operation-Id": "op-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "OperationIdReused")
    assert await stored(store) == 1


async def test_a_repeated_submit_has_the_large_result(api: Api) -> None:
    """The answer to a submit of what has ended is the whole status monitor."""
    await run(api, "make", {"size": LARGE})
    again = await api.submit("/big:make", {"size": LARGE}, {"Operation-Id": "op-1"})
    assert again.json()["result"] == "x" * LARGE


async def test_limits(api: Api, stage: RunnerStage) -> None:
    """A body or a result over the limit is refused as ever; the document of the API has the limit."""
    too_large = await api.submit("/big:hash", {"text": "x" * (4 * 1024 * 1024)})
    assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "PayloadTooLarge")
    assert "4194304 bytes" in too_large.json()["error"]["message"]
    failed = await run(api, "make", {"size": 5_000_000})
    assert failed.json()["error"]["code"] == "ResultTooLarge"
    document = (await api.client.get("/openapi.json")).json()
    assert "4194304 bytes" in document["paths"]["/big:hash"]["post"]["requestBody"]["description"]


async def test_a_damaged_input_never_runs(api: Api, stage: RunnerStage, location: StoreLocation) -> None:
    """While the input is not the one that was sent, no attempt begins; once it is restored, it runs."""
    given = {"text": "w" * LARGE}
    accepted = await api.submit("/big:hash", given, {"Operation-Id": "op-2", "Operation-Start-After": "1"})
    assert accepted.status_code == 202
    (requested,) = await stage.events("op-2")
    assert isinstance(requested.data, Requested)
    assert requested.data.input_payload is not None
    path = path_of(location, requested.data.input_payload.key)
    right = path.read_bytes()
    path.write_bytes(b"#" + right[1:])
    began = time.monotonic()
    while time.monotonic() - began < 3:
        assert await stage.names("op-2") == ["requested"]
        await stage.link.sleep(0.2)
    path.write_bytes(right)
    operation = await stage.ended("op-2", within=30)
    assert operation.status is Status.SUCCEEDED
    assert isinstance(operation.result, msgspec.Raw)
    assert bytes(operation.result) == msgspec.json.encode(hashlib.sha256(given["text"].encode()).hexdigest())


def path_of(location: StoreLocation, key: PayloadKey) -> Path:
    """Where a payload lies."""
    (installation,) = Path(location.folder).iterdir()
    return installation / "kept" / str(key)


async def test_a_damaged_result(api: Api, stage: RunnerStage, location: StoreLocation) -> None:
    """A result that is not what the action returned is an error, and never shown."""
    await run(api, "make", {"size": LARGE})
    succeeded = (await stage.events("op-1"))[-1].data
    assert isinstance(succeeded, Succeeded)
    assert succeeded.result_payload is not None
    path = path_of(location, succeeded.result_payload.key)
    path.write_bytes(b"#" + path.read_bytes()[1:])
    answer = await api.status("op-1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "PayloadUnreadable")
    path.unlink()
    assert (await api.status("op-1")).json()["error"]["code"] == "PayloadUnreadable"


async def test_a_retry_has_the_same_input(api: Api, stage: RunnerStage, store: PayloadStore) -> None:
    """What did not succeed is done again with its large input, under a name of its own."""
    given = {"text": "v" * LARGE}
    accepted = await api.submit("/big:hash", given, {"Operation-Id": "op-1", "Operation-Start-After": "600"})
    assert accepted.status_code == 202
    assert (await api.cancel("op-1")).json()["status"] == "Canceled"
    again = await api.client.post("/status/op-1:retry")
    assert again.status_code == 202, again.text
    ended = await api.wait("op-1-retry-1", 20)
    assert ended.json()["result"] == hashlib.sha256(given["text"].encode()).hexdigest()
    assert await stored(store) == 2


@pytest.mark.parametrize("sort", ["attach", "attach-plain", "attach-apart", "attach-plain-apart"])
async def test_files(api: Api, stage: RunnerStage, tmp_path: Path, sort: str) -> None:
    """A handler of any sort adds files, which are in the status, and downloaded whole or in part."""
    proof, notes = tmp_path / "proof (1).pdf", tmp_path / "notes.txt"
    proof.write_bytes(numbered_bytes(700_000))
    notes.write_bytes(b"")
    answer = await run(api, sort, {"paths": [str(proof), str(notes)]})
    assert answer.json()["status"] == "Succeeded", answer.text
    first, second = answer.json()["attachments"]
    assert (first["name"], first["mediaType"], first["size"]) == ("proof (1).pdf", "application/pdf", 700_000)
    assert first["sha256"] == hashlib.sha256(proof.read_bytes()).hexdigest()
    assert (second["name"], second["size"]) == ("notes.txt", 0)
    names = await stage.names("op-1")
    assert names == ["requested", "started", "attached", "attached", "succeeded"]

    whole = await api.client.get(first["href"])
    assert (whole.status_code, whole.content) == (200, proof.read_bytes())
    assert whole.headers["content-type"] == "application/pdf"
    assert whole.headers["content-disposition"] == 'attachment; filename="proof (1).pdf"'
    assert whole.headers["etag"] == f'"{first["sha256"]}"'
    assert whole.headers["content-length"] == "700000"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert (await api.client.get(second["href"])).content == b""
    known = await api.client.get(first["href"], headers={"If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    head = await api.client.head(first["href"])
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "700000")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=699990-", 699_990, 700_000),
        ("bytes=-5", 699_995, 700_000),
        ("bytes=262140-262150", 262_140, 262_151),
        ("bytes=0-9999999", 0, 700_000),
    ],
)
async def test_ranges_of_a_file(api: Api, tmp_path: Path, wanted: str, start: int, end: int) -> None:
    """A range is that part of the bytes, and says of how many."""
    (tmp_path / "a.pdf").write_bytes(numbered_bytes(700_000))
    href = (await run(api, "attach", {"paths": [str(tmp_path / "a.pdf")]})).json()["attachments"][0]["href"]
    part = await api.client.get(href, headers={"Range": wanted})
    assert (part.status_code, part.content) == (206, numbered_bytes(700_000)[start:end])
    assert part.headers["content-range"] == f"bytes {start}-{end - 1}/700000"
    beyond = await api.client.get(href, headers={"Range": "bytes=700000-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */700000")
    assert beyond.json()["error"]["code"] == "RangeNotSatisfiable"
    changed = await api.client.get(href, headers={"Range": wanted, "If-Range": '"other"'})
    assert changed.status_code == 200
    missing = await api.client.get(f"/status/op-1/payloads/{'0' * 32}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "PayloadNotFound")


async def test_an_attempt_adds_its_files_again(api: Api, stage: RunnerStage, tmp_path: Path) -> None:
    """A file of the name of an earlier attempt's replaces that."""
    (tmp_path / "a.pdf").write_bytes(b"content")
    answer = await run(api, "attach", {"paths": [str(tmp_path / "a.pdf")], "fails_first": True})
    (file,) = answer.json()["attachments"]
    assert (await api.client.get(file["href"])).content == b"content"
    added = [data for data in await stage.datas("op-1") if isinstance(data, Attached)]
    assert [one.attempt for one in added] == [1, 2]
    assert added[0].payload.uri != added[1].payload.uri


async def test_files_that_are_none(api: Api, tmp_path: Path) -> None:
    """A path without a file, or a name that clients could not use, fails the attempt and is recorded nowhere."""
    (tmp_path / "-rf").write_text("x")
    for number, path in enumerate([tmp_path / "missing", tmp_path, tmp_path / "-rf"]):
        answer = await run(api, "attach", {"paths": [str(path)]}, f"op-{number}")
        assert answer.json()["status"] == "Failed"
        assert "attachments" not in answer.json()


async def test_a_service_without_a_store(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """On a broker that an earlier version has provisioned, everything works that fits into events; the rest is 413."""
    await link.nc.jetstream().delete_stream(PAYLOADS_STREAM)
    async with (
        stage.runner(collect_actions([payload_actions])),
        serving(broker.url) as api,
    ):
        await eventually(lambda: api.conditions.current == [])
        assert (await run(api, "echo", {"text": "small"})).json()["result"] == {"text": "small"}
        refused = await api.submit("/big:echo", {"text": "x" * LARGE})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "PayloadTooLarge")


async def stored(store: PayloadStore) -> int:
    """The number of payloads in the store."""
    later = datetime(2100, 1, 1, tzinfo=UTC)
    return sum([len(page) async for page in store.older_than(later)])
