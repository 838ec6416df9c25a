"""The three payload stores, each real: JetStream on a broker, a folder, and a server that speaks S3."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream_journal import Connection
from opstream_payloads.drivers import open_store
from opstream_payloads.location import parse_store_location
from opstream_payloads.store import PayloadStore
from tests.support.payloads.s3_server import BUCKET, s3_server


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


@pytest.fixture(params=["jetstream", "folder", "s3"])
async def store(
    request: pytest.FixtureRequest, link: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PayloadStore]:
    """An empty store, started."""
    if request.param == "s3":
        pytest.importorskip("moto.server")
        with s3_server(monkeypatch):
            yield await open_store(parse_store_location(f"s3://{BUCKET}/some/prefix"), link, utc_now)
        return
    url = "jetstream:" if request.param == "jetstream" else f"file://{tmp_path}/payloads"
    opened = await open_store(parse_store_location(url), link, utc_now)
    yield opened
    await opened.stop()
