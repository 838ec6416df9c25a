"""What is counted of payloads and uploads: whole ones, bytes, and each kind of failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from opstream_api.payloads.upload_meter import UploadMeter
from opstream_journal.metrics.instruments import Instrument
from opstream_payloads import PayloadError, Payloads, PayloadTooLarge, StoreUnavailable
from opstream_payloads.folder_store import FolderStore
from opstream_schemas.payloads.payload_ref import PayloadRef

pytestmark = pytest.mark.unit

UNIQUE = "0" * 31 + "1"


def numbers(*instruments: Instrument) -> dict[str, float]:
    """The series that are not zero."""
    return {
        " ".join((one.name, *sample.labels)): sample.value
        for one in instruments
        for sample in one.samples()
        if sample.value
    }


async def broken() -> AsyncGenerator[bytes, None]:
    yield b"abc"
    raise StoreUnavailable("away")


async def test_payloads(tmp_path: Path) -> None:
    """Whole payloads count once, bytes as they pass; a failure has its reason, and what is too large is none."""
    store = FolderStore(str(tmp_path), "one")
    await store.start()
    payloads = Payloads(store, lambda: UNIQUE)
    ref = await payloads.store_payload("op", b"12345")
    assert await payloads.fetch("op", ref, limit=10) == b"12345"
    assert b"".join([piece async for piece in payloads.stream_range("op", ref, 1, 2)]) == b"23"
    assert numbers(*payloads.meter.instruments) == {
        "opstream_payloads stored": 1,
        "opstream_payloads read": 2,
        "opstream_payload_bytes stored": 5,
        "opstream_payload_bytes read": 7,
    }
    with pytest.raises(PayloadTooLarge):
        await payloads.store_stream("op", broken(), limit=1)
    with pytest.raises(StoreUnavailable):
        await payloads.store_stream("op", broken())
    damaged = PayloadRef(uri=ref.uri, size=5, sha256="0" * 64)
    missing = PayloadRef(uri=ref.uri[:-1] + "2", size=5, sha256="0" * 64)
    for one in (damaged, missing):
        with pytest.raises(PayloadError):
            await payloads.fetch("op", one, limit=10)
    found = numbers(*payloads.meter.instruments)
    assert {name: value for name, value in found.items() if "failures" in name} == {
        "opstream_payload_failures stored unavailable": 1,
        "opstream_payload_failures read damaged": 1,
        "opstream_payload_failures read missing": 1,
    }
    assert (found["opstream_payloads stored"], found["opstream_payloads read"]) == (1, 2)


def test_uploads() -> None:
    """An upload is open while it comes, and counts once by its end."""
    meter = UploadMeter()
    with meter.receiving():
        assert numbers(*meter.instruments) == {"opstream_uploads_open": 1}
    for error in (PayloadTooLarge("1"), StoreUnavailable("away"), asyncio.CancelledError()):
        with pytest.raises(type(error)), meter.receiving():
            raise error
    assert numbers(*meter.instruments) == {
        f"opstream_uploads {outcome}": 1 for outcome in ("stored", "too-large", "unavailable", "broken")
    }
