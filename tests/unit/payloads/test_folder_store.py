"""The folder of payloads: what a crash leaves, what is not ours, and a disk that can't be used."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opstream_payloads.errors import PayloadMissing, StoreUnavailable
from opstream_payloads.folder_store import FolderStore
from opstream_payloads.pieces import MeasuredPieces, pieces_of_bytes
from opstream_schemas.payloads.payload_ref import PayloadKey
from tests.support.broker.small_disk import MEBIBYTE, no_small_disk, small_disk
from tests.support.payloads.streams import collected, new_key, numbered_bytes

pytestmark = pytest.mark.unit

LATER = timedelta(days=2)


@pytest.fixture
async def store(tmp_path: Path) -> FolderStore:
    """An empty store."""
    store = FolderStore(str(tmp_path / "payloads"), "one")
    await store.start()
    return store


async def put(store: FolderStore, key: PayloadKey, data: bytes = b"data") -> None:
    await store.put(key, MeasuredPieces(pieces_of_bytes(data)), "text/plain")


async def listed(store: FolderStore) -> set[PayloadKey]:
    return {one.key async for page in store.older_than(datetime.now(UTC) + LATER) for one in page}


async def test_where_it_lies(store: FolderStore, tmp_path: Path) -> None:
    """A payload is one file below its operation's folder, which nobody else may read."""
    key = new_key("op-7")
    await put(store, key)
    path = tmp_path / "payloads" / "one" / "kept" / "op-7" / key.unique
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.parent.stat().st_mode & 0o077 == 0
    await store.delete([key])
    assert not path.parent.exists()


async def test_two_installations_share_a_folder(store: FolderStore, tmp_path: Path) -> None:
    """Each finds its own payloads only."""
    other = FolderStore(str(tmp_path / "payloads"), "two")
    await other.start()
    key = new_key()
    await put(store, key)
    assert await listed(other) == set()
    assert await other.stat(key) is None
    await other.delete([key])
    assert await listed(store) == {key}


async def test_a_writer_that_is_killed(store: FolderStore, tmp_path: Path) -> None:
    """What a killed writer has left is no payload, and goes once it is old."""
    begun = tmp_path / "payloads" / "one" / "begun"
    (begun / f"{'1' * 32}.00000000").write_bytes(b"half")
    assert await listed(store) == set()
    assert await store.remove_unfinished(datetime.now(UTC) - timedelta(hours=1)) == 0
    os.utime(begun / f"{'1' * 32}.00000000", (0, 0))
    assert await store.remove_unfinished(datetime.now(UTC) - timedelta(hours=1)) == 1
    assert list(begun.iterdir()) == []


async def test_a_reader_sees_all_or_nothing(store: FolderStore) -> None:
    """Until the last byte is stored, nobody finds the payload."""
    key = new_key()
    seen = []

    async def source() -> AsyncGenerator[bytes, None]:
        for _ in range(3):
            yield b"x" * 10
            seen.append(await store.stat(key))

    await store.put(key, MeasuredPieces(source()), "text/plain")
    assert seen == [None, None, None]
    stored = await store.stat(key)
    assert stored is not None
    assert stored.size == 30


async def test_what_is_not_ours(store: FolderStore, tmp_path: Path) -> None:
    """Files of other names, links and folders are neither listed nor removed, and don't stop the walk."""
    kept = tmp_path / "payloads" / "one" / "kept"
    key = new_key("op-1")
    await put(store, key)
    (kept / "op-1" / "notes.txt").write_text("mine")
    (kept / "stray").write_text("mine")
    (kept / "link").symlink_to(tmp_path)
    assert await listed(store) == {key}
    await store.delete([key])
    assert (kept / "op-1" / "notes.txt").read_text() == "mine"


async def test_removed_while_it_is_written(store: FolderStore) -> None:
    """Payloads of one operation are stored while its folder comes and goes."""
    keys = [new_key("op-1") for _ in range(60)]

    async def come_and_go(key: PayloadKey) -> None:
        await put(store, key)
        await store.delete([key])

    await asyncio.gather(*map(come_and_go, keys[:-1]), put(store, keys[-1]))
    assert await listed(store) == {keys[-1]}


async def test_a_full_disk(tmp_path: Path) -> None:
    """A write that has no room ends with the next step, and leaves nothing."""
    if reason := no_small_disk():
        pytest.skip(reason)
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", 4 * MEBIBYTE) as disk:
        store = FolderStore(str(tmp_path / "disk"), "one")
        await store.start()
        disk.fill(leave=300_000)
        key = new_key()
        with pytest.raises(StoreUnavailable, match="make room on its disk"):
            await put(store, key, numbered_bytes(1_000_000))
        assert await store.stat(key) is None
        assert list((tmp_path / "disk" / "one" / "begun").iterdir()) == []
        disk.free()
        await put(store, key, numbered_bytes(1_000_000))
        assert await collected(store.get(key, 0, 10**7)) == numbered_bytes(1_000_000)


async def test_a_folder_that_can_not_be_used(tmp_path: Path) -> None:
    """A file in the place of the folder is an error that says so."""
    (tmp_path / "payloads").write_text("a file")
    with pytest.raises(StoreUnavailable, match="look at its disk and its rights"):
        await FolderStore(str(tmp_path / "payloads"), "one").start()


async def test_missing(store: FolderStore) -> None:
    """A payload that is not there is missing."""
    with pytest.raises(PayloadMissing, match="has no payload op-1/"):
        await collected(store.get(new_key(), 0, 1))
