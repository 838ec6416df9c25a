"""What every payload store does, on each of the three."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opstream_payloads.errors import PayloadDamaged, PayloadMissing, PayloadTooLarge
from opstream_payloads.payloads import Payloads
from opstream_payloads.pieces import MeasuredPieces, pieces_of_bytes
from opstream_payloads.store import PayloadStore
from tests.support.payloads.streams import breaking_off, collected, in_pieces, new_key, numbered_bytes, ref_of

pytestmark = pytest.mark.broker

CHUNK = 256 * 1024
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
LATER = timedelta(days=2)


@pytest.fixture
def payloads(store: PayloadStore) -> Payloads:
    """The payloads in the store."""
    return Payloads(store, lambda: str(uuid.uuid4()))


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_stored_is_fetched(payloads: Payloads, size: int, tmp_path: Path) -> None:
    """Bytes and files of any size come back as they were, and the claim check says how long they are."""
    data = numbered_bytes(size)
    ref = await payloads.store_payload("op-1", data)
    assert ref == ref_of(ref.key, data)
    assert await payloads.fetch("op-1", ref, limit=size) == data

    (tmp_path / "source").write_bytes(data)
    again = await payloads.store_payload("op-1", tmp_path / "source")
    assert (again.size, again.sha256) == (ref.size, ref.sha256)
    assert again.uri != ref.uri
    await payloads.fetch_to("op-1", again, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


async def test_pieces_of_any_size(payloads: Payloads) -> None:
    """It makes no difference in which pieces a payload comes."""
    data = numbered_bytes(2 * CHUNK + 77)
    ref = await payloads.store_stream("op-1", in_pieces(data, 1, CHUNK * 2, 13, 0, 70_000))
    assert await payloads.fetch("op-1", ref, limit=len(data)) == data


async def test_ranges(payloads: Payloads) -> None:
    """A part of a payload is the same part of its bytes, also across the ends of chunks."""
    data = numbered_bytes(3 * CHUNK + 5)
    ref = await payloads.store_payload("op-1", data)
    for start, length in [(0, 1), (CHUNK - 1, 2), (CHUNK, CHUNK), (5, 3 * CHUNK), (len(data) - 1, 1), (7, 0)]:
        assert await collected(payloads.stream_range("op-1", ref, start, length)) == data[start : start + length]
    with pytest.raises(PayloadDamaged, match="1 bytes less"):
        await collected(payloads.stream_range("op-1", ref, len(data) - 1, 2))


async def test_a_payload_is_not_another_ones(payloads: Payloads) -> None:
    """An event can name no payload of another operation, and nothing that is no payload."""
    ref = await payloads.store_payload("op-1", b"secret")
    with pytest.raises(PayloadMissing, match="not a payload of operation op-2"):
        await payloads.fetch("op-2", ref, limit=100)
    for uri in ("payload:op-1/../../etc/passwd", "file:///etc/passwd", "payload:", "s3://bucket/op-1"):
        forged = ref_of(ref.key, b"secret")
        forged = type(forged)(uri=uri, size=forged.size, sha256=forged.sha256)
        with pytest.raises(PayloadMissing, match="is not the"):
            await payloads.fetch("op-1", forged, limit=100)


async def test_one_that_is_not_there(store: PayloadStore, payloads: Payloads) -> None:
    """A payload that was never stored is missing, not empty."""
    key = new_key()
    assert await store.stat(key) is None
    with pytest.raises(PayloadMissing):
        await payloads.fetch("op-1", ref_of(key, b""), limit=10)
    await store.delete([key])


@pytest.mark.parametrize("wrong", [b"payloaX", b"payload and more", b"pay", b""])
async def test_other_bytes_are_never_taken_for_a_payload(store: PayloadStore, payloads: Payloads, wrong: bytes) -> None:
    """A changed, longer or shorter payload ends with an error, and its last bytes are not handed out."""
    key = new_key()
    await store.put(key, MeasuredPieces(pieces_of_bytes(wrong)), "text/plain")
    seen: list[bytes] = []
    with pytest.raises(PayloadDamaged, match="restore it from a backup"):
        await collect_into(seen, payloads.stream("op-1", ref_of(key, b"payload")))
    assert seen == []


async def test_a_limit(store: PayloadStore, payloads: Payloads) -> None:
    """What is too large is not stored; what is too large for its reader is not read."""
    with pytest.raises(PayloadTooLarge, match="more than 1000000 bytes"):
        await payloads.store_stream("op-1", in_pieces(numbered_bytes(2_000_000), CHUNK), limit=1_000_000)
    assert await found(store) == set()
    ref = await payloads.store_payload("op-1", b"12345")
    with pytest.raises(PayloadTooLarge, match="has 5 bytes, and 4 are read"):
        await payloads.fetch("op-1", ref, limit=4)


async def test_a_source_that_breaks_off(store: PayloadStore) -> None:
    """What its source did not end is not there, and leaves nothing that stays."""
    key = new_key()
    for error in (RuntimeError("gone"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await store.put(key, MeasuredPieces(breaking_off(numbered_bytes(600_000), error)), "text/plain")
        assert await store.stat(key) is None
        assert await found(store) == set()
    await store.remove_unfinished(datetime.now(UTC) + LATER)
    assert await store.remove_unfinished(datetime.now(UTC) + LATER) == 0


async def test_listed_by_age_and_removed(store: PayloadStore) -> None:
    """Payloads are listed once they are old enough, and what was removed is gone."""
    keys = [new_key(f"op-{number % 3}") for number in range(7)]
    for key in keys:
        await store.put(key, MeasuredPieces(pieces_of_bytes(b"x" * 10)), "text/plain")
    assert await found(store) == set(keys)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert [page async for page in store.older_than(yesterday)] == []
    stored = await store.stat(keys[0])
    assert stored is not None
    assert (stored.key, stored.size) == (keys[0], 10)
    assert yesterday < stored.stored_at <= datetime.now(UTC) + timedelta(seconds=2)

    await store.delete(keys[:4])
    await store.delete([keys[0]])
    assert await found(store) == set(keys[4:])
    with pytest.raises(PayloadMissing):
        await collected(store.get(keys[0], 0, 10))


async def test_many_at_once(payloads: Payloads) -> None:
    """Payloads that are stored at the same time do not mix."""
    contents = [numbered_bytes(CHUNK + number) + bytes([number]) for number in range(12)]
    refs = await asyncio.gather(*(payloads.store_payload("op-1", one) for one in contents))
    fetched = await asyncio.gather(*(payloads.fetch("op-1", ref, limit=10**7) for ref in refs))
    assert fetched == contents


async def collect_into(seen: list[bytes], pieces: AsyncGenerator[bytes, None]) -> None:
    """Read a stream, and keep what came before an error."""
    async for piece in pieces:
        seen.append(piece)  # noqa: PERF401 - an error would lose a comprehension's


async def found(store: PayloadStore) -> set[object]:
    """The keys of all payloads in the store."""
    pages = store.older_than(datetime.now(UTC) + LATER)
    return {one.key async for page in pages for one in page}
