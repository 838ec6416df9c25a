"""Files that clients upload before they submit: from HTTP to the handler, and the end of those that nobody names."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from opstream_api.payloads import upload_desk
from opstream_journal import Connection, Journal
from opstream_journal.runtime.conditions import Conditions
from opstream_payloads.documents import Documents
from opstream_payloads.drivers import open_store
from opstream_payloads.location import StoreLocation
from opstream_payloads.payloads import Payloads
from opstream_payloads.store import PayloadStore
from opstream_projector.payload_sweeper import PayloadSweeper
from opstream_runner.authoring.action import collect_actions
from tests.support.api.service import Api, serving
from tests.support.broker.server import Broker
from tests.support.payloads import payload_actions
from tests.support.payloads.streams import in_pieces, numbered_bytes
from tests.support.runner.stage import RunnerStage
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

LIMIT = 1_000_000
SCAN = numbered_bytes(700_000)


def utc_now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def location(tmp_path: Path) -> StoreLocation:
    """A folder that the API and the runner share."""
    return StoreLocation(folder=str(tmp_path / "payloads"))


@pytest.fixture
async def store(link: Connection, location: StoreLocation) -> PayloadStore:
    return await open_store(location, link, utc_now)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def api(broker: Broker, stage: RunnerStage, store: PayloadStore, location: StoreLocation) -> AsyncIterator[Api]:
    """The API, and a runner, with the store."""
    payloads = Payloads(store, lambda: str(uuid.uuid4()))
    dependencies = stage.dependencies(documents=Documents(payloads), payloads=payloads)
    async with (
        stage.runner(collect_actions([payload_actions]), dependencies=dependencies),
        serving(broker.url, payload_store=location, upload_limit=LIMIT) as api,
    ):
        yield api


async def place(api: Api, name: str = "scan.tif", operation_id: str = "op-1") -> httpx.Response:
    """Ask for a place."""
    return await api.client.post("/payloads", json={"name": name}, headers={"Operation-Id": operation_id})


async def uploaded(api: Api, data: bytes = SCAN, name: str = "scan.tif", operation_id: str = "op-1") -> dict[str, Any]:
    """Upload a file, and return the answer."""
    given = await place(api, name, operation_id)
    assert given.status_code == 201, given.text
    sent = await api.client.put(given.json()["href"], content=data, headers={"Content-Type": "image/tiff"})
    assert sent.status_code == 201, sent.text
    found: dict[str, Any] = sent.json()
    return found


async def submit(api: Api, tmp_path: Path, *claims: str, sort: str = "take", key: str = "op-1") -> httpx.Response:
    """Submit, with claims."""
    headers = {"Operation-Id": key, **({"Operation-Upload": ", ".join(claims)} if claims else {})}
    return await api.submit(f"/big:{sort}", {"folder": str(tmp_path)}, headers)


async def stored(store: PayloadStore) -> int:
    """The number of payloads in the store."""
    return sum([len(page) async for page in store.older_than(datetime(2100, 1, 1, tzinfo=UTC))])


@pytest.mark.parametrize("sort", ["take", "take-plain", "take-apart"])
async def test_there_and_through(api: Api, stage: RunnerStage, tmp_path: Path, sort: str) -> None:
    """A handler of any sort reads them; the status has them, and they are downloaded like other files."""
    first, second = await uploaded(api), await uploaded(api, b"", "notes (1).txt")
    assert (first["size"], first["sha256"]) == (len(SCAN), hashlib.sha256(SCAN).hexdigest())
    accepted = await submit(api, tmp_path, first["claim"], second["claim"], sort=sort)
    assert accepted.status_code == 202, accepted.text
    ended = (await api.wait("op-1", 20)).json()
    assert ended["result"] == {one["name"]: one["sha256"] for one in (first, second)}
    scan, notes = ended["uploads"]
    assert (scan["name"], scan["mediaType"], scan["size"]) == ("scan.tif", "image/tiff", len(SCAN))
    assert (notes["name"], notes["size"]) == ("notes (1).txt", 0)
    assert (await api.client.get(scan["href"])).content == SCAN
    assert (await stage.events("op-1"))[0].type == "opstream.action.requested.v4"


async def test_the_same_request_again(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes uploaded again are the same request, also once its claims have expired; others are another."""
    one = await uploaded(api)
    (tmp_path / "again").mkdir()
    assert (await submit(api, tmp_path, one["claim"])).status_code == 202
    assert (await submit(api, tmp_path, one["claim"])).status_code == 202
    late = await place(api)
    assert (late.status_code, late.json()["error"]["code"]) == (400, "OperationIdReused")
    without = await submit(api, tmp_path)
    assert (without.status_code, without.json()["error"]["code"]) == (400, "OperationIdReused")
    monkeypatch.setattr(upload_desk, "CLAIM_SECONDS", -1)
    expired = await uploaded(api, SCAN, operation_id="op-2")
    refused = await submit(api, tmp_path, expired["claim"], key="op-2")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "InvalidHeader")
    assert "upload it again" in refused.json()["error"]["message"]


async def test_claims_that_are_none(api: Api, store: PayloadStore, tmp_path: Path) -> None:
    """One of another operation, one that was changed, one whose file is gone, too many, and two of one name."""
    one, other = await uploaded(api), await uploaded(api, operation_id="op-2")
    twice = await uploaded(api, b"other")
    changed = f"{'A' if one['claim'][0] != 'A' else 'B'}{one['claim'][1:]}"
    for claims in ((other["claim"],), (changed,), ("x",), ("",), (one["claim"],) * 11, (one["claim"], twice["claim"])):
        refused = await submit(api, tmp_path, *claims)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "InvalidHeader"), claims
        assert refused.json()["error"]["target"] == "Operation-Upload"
    async for page in store.older_than(datetime(2100, 1, 1, tzinfo=UTC)):
        await store.delete([stored.key for stored in page])
    gone = await submit(api, tmp_path, one["claim"])
    assert "not kept any more" in gone.json()["error"]["message"]
    assert (await api.status("op-1")).status_code == 404


async def test_places_that_are_none(api: Api) -> None:
    """A name that is a path, an unknown member, no body, and methods that these paths do not have."""
    for body in ({"name": "../etc/passwd"}, {"name": "-rf"}, {"name": "a", "size": 1}, {}, []):
        refused = await api.client.post("/payloads", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "InvalidInput"), body
    for path in ("/payloads/op-1/..%2Fx", "/payloads/op-1/-rf", "/payloads/op%201/a"):
        assert (await api.client.put(path, content=b"x")).status_code in {400, 404}, path
    typed = await api.client.put("/payloads/op-1/a", content=b"x", headers={"Content-Type": "nonsense"})
    assert typed.status_code == 415
    assert (await api.client.get("/payloads")).headers["allow"] == "POST"
    assert (await api.client.post("/payloads/op-1/a")).headers["allow"] == "PUT"
    generated = await api.client.post("/payloads", json={"name": "a.txt"})
    assert generated.headers["Operation-Id"] == generated.json()["operationId"]
    assert generated.json()["maxSize"] == LIMIT


async def endless(data: bytes) -> AsyncGenerator[bytes, None]:
    """The bytes, and then a client that is gone."""
    yield data
    raise ConnectionError("gone")


async def test_limits(api: Api, store: PayloadStore) -> None:
    """A larger file is refused, whether its size is declared or not; one that breaks off is not stored."""
    for content in (bytes(LIMIT + 1), in_pieces(bytes(LIMIT + 1), 65_536)):
        refused = await api.client.put("/payloads/op-1/a", content=content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "PayloadTooLarge")
    with pytest.raises(ConnectionError):
        await api.client.put("/payloads/op-1/a", content=endless(bytes(300_000)))
    await eventually(lambda: api.connections <= 1, within=5)
    assert await stored(store) == 0
    document = (await api.client.get("/openapi.json")).json()
    assert f"{LIMIT} bytes" in document["paths"]["/payloads/{operationId}/{name}"]["put"]["description"]


async def test_what_nobody_names_goes(api: Api, store: PayloadStore, stage: RunnerStage, tmp_path: Path) -> None:
    """After a day the sweep removes what no operation has, and keeps what one has."""
    one = await uploaded(api)
    await uploaded(api, operation_id="op-2")
    await submit(api, tmp_path, one["claim"])
    await api.wait("op-1", 20)

    async def walk(days: int) -> int:
        sweeper = PayloadSweeper(
            stage.link,
            stage.journal,
            store,
            Conditions(),
            now=lambda: utc_now() + timedelta(days=days, minutes=30),
            monotonic=time.monotonic,
            share=1.0,
        )
        await sweeper._snapshots.start()
        return await sweeper.walk()

    assert await walk(0) == 0
    assert (await stored(store), await walk(1)) == (2, 1)
    assert await stored(store) == 1


async def test_a_retry_is_refused(api: Api, tmp_path: Path) -> None:
    """The files belong to the operation that they were uploaded for, so its input alone would be another work."""
    one = await uploaded(api)
    headers = {"Operation-Id": "op-1", "Operation-Upload": one["claim"], "Operation-Start-After": "600"}
    assert (await api.submit("/big:take", {"folder": str(tmp_path)}, headers)).status_code == 202
    assert (await api.cancel("op-1")).json()["status"] == "Canceled"
    refused = await api.client.post("/status/op-1:retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "OperationNotRetriable")
    assert "upload them again" in refused.json()["error"]["message"]
