"""The doctor names a payload store that this machine can't reach, and says nothing against one that it can."""

from __future__ import annotations

from pathlib import Path

import pytest

from opstream.doctor import payload_look
from opstream.doctor.payload_look import UNREACHABLE, WORKS, look_at_payload_store
from opstream.doctor.system_findings import Level
from opstream_journal import Connection
from opstream_payloads.location import StoreLocation, parse_store_location
from opstream_schemas.payloads.object_subjects import PAYLOADS_STREAM
from tests.support.payloads.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.broker


async def test_a_folder(link: Connection, tmp_path: Path) -> None:
    """One that is there, and one that is not; nothing is made."""
    (there,) = await look_at_payload_store(StoreLocation(folder=str(tmp_path)), link)
    assert (there.name, there.level) == (WORKS, Level.OK)
    (away,) = await look_at_payload_store(StoreLocation(folder=str(tmp_path / "none")), link)
    assert (away.name, away.level) == (UNREACHABLE, Level.CRITICAL)
    assert f"file://{tmp_path}/none can't be reached: there is no folder" in away.message
    assert "mount it" in away.next_step
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - one folder of a test


async def test_a_bucket(link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers, and one whose server is gone."""
    pytest.importorskip("moto.server")
    location = parse_store_location(f"s3://{BUCKET}/some")
    with s3_server(monkeypatch):
        (there,) = await look_at_payload_store(location, link)
        assert there.level is Level.OK
    monkeypatch.setattr(payload_look, "PATIENCE", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    (away,) = await look_at_payload_store(location, link)
    assert (away.name, away.level) == (UNREACHABLE, Level.CRITICAL)
    assert f"s3://{BUCKET}/some" in away.message


async def test_an_installation_without_identity(link: Connection, tmp_path: Path) -> None:
    """The services would have no store, either."""
    await link.nc.jetstream().delete_stream(PAYLOADS_STREAM)
    (found,) = await look_at_payload_store(StoreLocation(folder=str(tmp_path)), link)
    assert "opstream provision --update" in found.next_step
    assert await look_at_payload_store(StoreLocation(), link) == []
