"""The Python client and real files: up, through a handler, and down again."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream import AsyncOperationsClient, RequestRefused
from opstream_journal import Connection, Journal
from opstream_payloads.documents import Documents
from opstream_payloads.drivers import open_store
from opstream_payloads.location import StoreLocation
from opstream_payloads.payloads import Payloads
from opstream_runner.authoring.action import collect_actions
from tests.support.api.service import serving
from tests.support.broker.server import Broker
from tests.support.payloads import payload_actions
from tests.support.payloads.streams import numbered_bytes
from tests.support.runner.stage import RunnerStage

pytestmark = pytest.mark.broker

SCAN = numbered_bytes(700_000)


@pytest.fixture
async def client(
    broker: Broker, link: Connection, journal: Journal, tmp_path: Path
) -> AsyncIterator[AsyncOperationsClient]:
    """A client of an API whose store a runner shares."""
    location = StoreLocation(folder=str(tmp_path / "payloads"))
    payloads = Payloads(await open_store(location, link, lambda: datetime.now(UTC)), lambda: str(uuid.uuid4()))
    stage = RunnerStage(link, journal)
    dependencies = stage.dependencies(documents=Documents(payloads), payloads=payloads)
    async with (
        stage.runner(collect_actions([payload_actions]), dependencies=dependencies),
        serving(broker.url, payload_store=location, upload_limit=len(SCAN)) as api,
        AsyncOperationsClient(api.url) as client,
    ):
        yield client


async def test_up_and_down(client: AsyncOperationsClient, tmp_path: Path) -> None:
    """Two files are uploaded for one operation; the handler reads them, and they come back as they were."""
    scan, folder = tmp_path / "scan.tif", tmp_path / "taken"
    scan.write_bytes(SCAN)
    folder.mkdir()
    first = await client.upload(scan, media_type="image/tiff")
    second = await client.upload(b"", name="notes (1).txt", operation_id=first.operation_id)
    operation = await client.submit("big:take", {"folder": str(folder)}, uploads=[first, second])
    assert operation.id == first.operation_id
    assert await client.result(operation) == {one.name: one.sha256 for one in (first, second)}
    assert (await client.download(operation, "scan.tif", tmp_path / "back.tif")).read_bytes() == SCAN
    assert (await client.download(operation.id, "notes (1).txt", tmp_path)).read_bytes() == b""
    with pytest.raises(RequestRefused, match="submitted already"):
        await client.upload(scan, operation_id=operation.id)


async def test_an_attachment(client: AsyncOperationsClient, tmp_path: Path) -> None:
    """What a handler has attached is downloaded; what is not confidential can't be erased."""
    proof = tmp_path / "proof.pdf"
    proof.write_bytes(SCAN)
    operation = await client.submit("big:attach", {"paths": [str(proof)]})
    assert await client.result(operation) == 1
    assert (await client.download(operation, "proof.pdf", tmp_path / "back.pdf")).read_bytes() == SCAN
    with pytest.raises(RequestRefused, match="NotConfidential"):
        await client.erase(operation, reason="ticket 4711")
