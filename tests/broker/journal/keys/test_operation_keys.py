"""The keys of confidential operations on a real broker, and on its disk."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opstream_journal import Connection
from opstream_journal.errors import KeyMissing, KeyUnusable, OperationErased
from opstream_journal.jetstream import rpc
from opstream_journal.keys.keks import KekLocation, KekRing, open_ring
from opstream_journal.keys.operation_keys import KEYS_STREAM, OperationKeys
from opstream_schemas import subjects
from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.names import Kind
from opstream_schemas.seals.wrapped_key import KeyEntry, decode_entry, encode_entry
from tests.support.broker.server import Broker
from tests.support.keys.kek_files import write_keks

pytestmark = pytest.mark.broker

KIND = Kind("person", "check")
ERASURE = Erasure(at=datetime(2026, 11, 30, tzinfo=UTC), by="ann", reason="ticket 4711")


@pytest.fixture
def ring(tmp_path: Path) -> KekRing:
    """The key-encryption key of a file."""
    return KekRing(KekLocation(file=str(write_keks(tmp_path / "kek"))))


@pytest.fixture
def keys(link: Connection, ring: KekRing) -> OperationKeys:
    """The keys, as an API has them."""
    return OperationKeys(link, ring)


async def stored(link: Connection, operation_id: str) -> list[tuple[int, KeyEntry]]:
    """All values that the bucket has of an operation, oldest first."""
    subject = subjects.bucket_subject(subjects.OPERATION_KEYS_BUCKET, subjects.operation_key(KIND, operation_id))
    found, sequence = [], 0
    while (message := await rpc.get_next(link, KEYS_STREAM, subject, sequence + 1)) is not None:
        sequence = message.seq
        found.append((sequence, decode_entry(operation_id, message.data)))
    return found


def on_disk(broker: Broker, entry: KeyEntry) -> bool:
    """Whether a wrapped key, as the bucket has it, is in any file of the broker."""
    text = base64.b64encode(entry.wrapped)
    return any(text in file.read_bytes() for file in broker.store.rglob("*") if file.is_file())


async def test_the_same_request_gets_the_same_key(keys: OperationKeys) -> None:
    """However many ask for the key of an operation at once, there is one; it opens what it has sealed."""
    made = await asyncio.gather(*(keys.make(KIND, "a") for _ in range(5)))
    sealed = made[0].seal("canary")
    assert {one.open(sealed) for one in (*made, await keys.find(KIND, "a"))} == {"canary"}
    other = await keys.make(KIND, "b")
    assert other.seal("canary") != sealed
    with pytest.raises(KeyMissing, match="opstream keys import"):
        await keys.find(KIND, "c")


async def test_an_erasure_leaves_a_record_and_no_key(broker: Broker, link: Connection, keys: OperationKeys) -> None:
    """The key is gone for everybody, from the bucket, its history and the broker's disk; the first record stays."""
    await keys.make(KIND, "a")
    ((_, before),) = await stored(link, "a")
    assert on_disk(broker, before)
    assert await keys.erase(KIND, "a", ERASURE) == ERASURE
    assert [entry for _, entry in await stored(link, "a")] == [KeyEntry(erased=ERASURE)]
    assert not on_disk(broker, before)
    later = Erasure(at=datetime.now(UTC), by="bob")
    assert await keys.erase(KIND, "a", later) == ERASURE
    for ask in (keys.find(KIND, "a"), keys.make(KIND, "a")):
        with pytest.raises(OperationErased) as erased:
            await ask
        assert erased.value.erasure == ERASURE


async def test_who_finds_it_unfinished_goes_on(broker: Broker, link: Connection, keys: OperationKeys) -> None:
    """An erasure whose process ended in between is finished by the next one that asks for the key."""
    await keys.make(KIND, "a")
    ((revision, before),) = await stored(link, "a")
    name = subjects.bucket_subject(subjects.OPERATION_KEYS_BUCKET, subjects.operation_key(KIND, "a"))
    pending = encode_entry(KeyEntry(erased=ERASURE, pending=True))
    await rpc.publish(link, name, pending, {"Nats-Expected-Last-Subject-Sequence": str(revision)})
    with pytest.raises(OperationErased):
        await keys.find(KIND, "a")
    assert [entry for _, entry in await stored(link, "a")] == [KeyEntry(erased=ERASURE)]
    assert not on_disk(broker, before)


async def test_a_rotation(broker: Broker, link: Connection, keys: OperationKeys, tmp_path: Path) -> None:
    """All keys are wrapped by it, and open the same; what the old KEK has wrapped is on no disk any more. A service
    that runs on reads the new KEK by itself; one without it can't open anything."""
    sealed = (await keys.make(KIND, "a")).seal("canary")
    await keys.make(KIND, "gone")
    await keys.erase(KIND, "gone", ERASURE)
    ((_, before),) = await stored(link, "a")
    old_only = write_keks(tmp_path / "old", copy_of=tmp_path / "kek")
    write_keks(tmp_path / "kek", count=1, before=True)
    rotating = OperationKeys(link, open_ring(KekLocation(file=str(tmp_path / "kek"))))
    assert [one async for one in rotating.entries() if await rotating.rewrap(one)]
    assert not [one async for one in rotating.entries() if await rotating.rewrap(one)]
    ((_, after),) = await stored(link, "a")
    assert after.kek != before.kek
    assert not on_disk(broker, before)
    running = OperationKeys(link, KekRing(KekLocation(file=str(old_only)), clock=iter(range(0, 1000, 10)).__next__))
    with pytest.raises(KeyUnusable, match="which this process does not have"):
        await running.find(KIND, "a")
    old_only.write_bytes((tmp_path / "kek").read_bytes())
    assert (await running.find(KIND, "a")).open(sealed) == "canary"


async def test_a_process_without_a_kek(link: Connection, keys: OperationKeys) -> None:
    """It can make and open nothing, and says what to do; it can erase."""
    await keys.make(KIND, "a")
    without = OperationKeys(link, None)
    for ask in (without.find(KIND, "a"), without.make(KIND, "b")):
        with pytest.raises(KeyUnusable, match="--kek-file"):
            await ask
    assert await without.erase(KIND, "a", ERASURE) == ERASURE


async def test_a_damaged_key_is_not_guessed(link: Connection, keys: OperationKeys) -> None:
    """A value that is no wrapped key, or another operation's, is an error that says so."""
    await keys.make(KIND, "a")
    ((_, entry),) = await stored(link, "a")
    names = {one: subjects.operation_key(KIND, one) for one in ("b", "c")}
    assert await keys.put_wrapped(names["b"], encode_entry(entry))
    await rpc.publish(link, subjects.bucket_subject(subjects.OPERATION_KEYS_BUCKET, names["c"]), b"{", {})
    for one in names:
        with pytest.raises(KeyUnusable):
            await keys.find(KIND, one)
    assert await keys.put_erased(names["c"], ERASURE) == ERASURE
