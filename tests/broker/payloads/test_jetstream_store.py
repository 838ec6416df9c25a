"""JetStream's object store: its form, kills of the broker, and what other writers and damages do to it."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_payloads.drivers import open_store
from opstream_payloads.errors import PayloadDamaged, PayloadMissing, StoreUnavailable
from opstream_payloads.jetstream_store import JetStreamStore
from opstream_payloads.location import StoreLocation
from opstream_payloads.payloads import Payloads
from opstream_payloads.pieces import MeasuredPieces, pieces_of_bytes
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.names import Kind
from opstream_schemas.payloads.object_meta import CHUNK, decode_object_meta
from opstream_schemas.payloads.object_subjects import (
    PAYLOADS_BUCKET,
    PAYLOADS_STREAM,
    chunks_nuid,
    chunks_subject,
    metadata_subject,
)
from opstream_schemas.payloads.payload_ref import PayloadKey, PayloadRef
from tests.support.broker.roles import RoleBroker
from tests.support.broker.server import Broker
from tests.support.payloads.streams import collected, new_key, numbered_bytes, ref_of

pytestmark = pytest.mark.broker

LATER = timedelta(days=2)
TODAY = datetime.now(UTC).date()


def utc_now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def store(link: Connection) -> AsyncIterator[JetStreamStore]:
    """An empty store."""
    store = JetStreamStore(link, utc_now)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
def payloads(store: JetStreamStore) -> Payloads:
    """The payloads in the store."""
    return Payloads(store, lambda: str(uuid.uuid4()))


async def ask(link: Connection, what: str, body: Any) -> Any:
    """Call JetStream's API as the operator."""
    answer = await link.nc.request(f"$JS.API.{what}", msgspec.json.encode(body), timeout=5)
    return msgspec.json.decode(answer.data)


async def nuid_of(link: Connection, key: PayloadKey) -> str:
    """The name of a payload's chunks."""
    message = await link.nc.jetstream().get_last_msg(PAYLOADS_STREAM, metadata_subject(key))
    assert message.data is not None
    return decode_object_meta(message.data).nuid


async def begin(link: Connection, key: PayloadKey, day: date) -> str:
    """Store a chunk as a writer does that is killed before the end."""
    nuid = chunks_nuid(key, day, "0" * 8)
    await link.nc.jetstream().publish(chunks_subject(nuid), b"begun", headers={"Nats-Msg-Id": f"{nuid}.0"})
    return nuid


@pytest.mark.parametrize("size", [0, 1, 2 * CHUNK + 5])
async def test_other_clients_read_it(link: Connection, payloads: Payloads, size: int) -> None:
    """The form is that of NATS ADR-20: nats-py finds a payload by its key, with its size and digest."""
    data = numbered_bytes(size)
    ref = await payloads.store_payload("op-1", data)
    bucket = await link.nc.jetstream().object_store(PAYLOADS_BUCKET)
    found = await bucket.get(str(ref.key))
    assert (found.data, found.info.size) == (data, size)
    assert found.info.options is not None
    assert found.info.options.max_chunk_size == CHUNK


async def test_the_broker_is_killed_meanwhile(broker: Broker, link: Connection, payloads: Payloads) -> None:
    """A put goes on where it was once the broker is back, and each chunk is there once."""
    data = numbered_bytes(6 * CHUNK + 3)

    async def killing() -> AsyncGenerator[bytes, None]:
        for number, start in enumerate(range(0, len(data), CHUNK)):
            if number == 3:
                broker.kill()
                broker.start()
            yield data[start : start + CHUNK]

    ref = await payloads.store_stream("op-1", killing())
    assert await payloads.fetch("op-1", ref, limit=len(data)) == data
    info = await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {})
    assert info["state"]["messages"] == 8


async def test_a_broker_that_stays_away(broker: Broker, link: Connection) -> None:
    """A put gives up after its time, and says that nothing is stored."""
    store = JetStreamStore(link, utc_now, patience=0.5)
    await store.start()
    broker.kill()
    with pytest.raises(StoreUnavailable, match="is not stored"):
        await store.put(new_key(), MeasuredPieces(pieces_of_bytes(b"data")), "text/plain")
    with pytest.raises(StoreUnavailable, match="can't be read"):
        await store.stat(new_key())


@pytest.mark.parametrize("removed", [1, 3, 6])
async def test_a_lost_chunk(link: Connection, payloads: Payloads, removed: int) -> None:
    """A chunk that the broker has lost is noticed, also by who reads another part, and never replaced by the next."""
    data = numbered_bytes(5 * CHUNK + 9)
    ref = await payloads.store_payload("op-1", data)
    subject = chunks_subject(await nuid_of(link, ref.key))
    await lose(link, removed)
    assert (await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {"subjects_filter": subject}))["state"]["subjects"] == {
        subject: 5
    }
    with pytest.raises(PayloadDamaged, match=f"lacks chunk {removed} of 6"):
        await payloads.fetch("op-1", ref, limit=len(data))
    with pytest.raises(PayloadDamaged, match=f"lacks chunk {removed} of 6"):
        await collected(payloads.stream_range("op-1", ref, 0, len(data)))


async def lose(link: Connection, sequence: int) -> None:
    """Remove one message of the stream by copying the others to a new one of the same name."""
    jetstream = link.nc.jetstream()
    info = await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {})
    numbers = range(1, info["state"]["last_seq"] + 1)
    messages = [await jetstream.get_msg(PAYLOADS_STREAM, number) for number in numbers]
    await ask(link, f"STREAM.DELETE.{PAYLOADS_STREAM}", {})
    await ask(link, f"STREAM.CREATE.{PAYLOADS_STREAM}", info["config"])
    for number, message in enumerate(messages, start=1):
        if number != sequence:
            await jetstream.publish(str(message.subject), message.data or b"", headers=message.headers)


async def test_a_second_metadata_counts_for_nothing(
    link: Connection, store: JetStreamStore, payloads: Payloads
) -> None:
    """Who may store payloads can neither replace one nor have it removed, by naming other chunks for it."""
    ref = await payloads.store_payload("op-1", b"right")
    other = await payloads.store_payload("op-2", b"wrong")
    jetstream = link.nc.jetstream()
    forged = await jetstream.get_last_msg(PAYLOADS_STREAM, metadata_subject(other.key))
    await jetstream.publish(metadata_subject(ref.key), forged.data or b"")
    await jetstream.publish(metadata_subject(other.key), b"{no metadata")
    assert await store.remove_unfinished(utc_now() + LATER) == 0
    assert await payloads.fetch("op-1", ref, limit=10) == b"right"
    assert await payloads.fetch("op-2", other, limit=10) == b"wrong"


async def test_what_was_begun_and_never_ended(link: Connection, store: JetStreamStore, payloads: Payloads) -> None:
    """Chunks without metadata go once their day is over; what is whole, and what is none of ours, stays."""
    kept = await payloads.store_payload("op-1", b"kept")
    await begin(link, new_key("op-2"), TODAY)
    old = await begin(link, new_key("op-3"), TODAY - timedelta(days=1))
    await link.nc.jetstream().publish(f"$O.{PAYLOADS_BUCKET}.C.{TODAY - timedelta(days=1):%Y%m%d}.other", b"other")
    await link.nc.jetstream().publish(f"$O.{PAYLOADS_BUCKET}.C.another", b"other")

    assert await store.remove_unfinished(utc_now() - timedelta(days=1)) == 0
    assert await store.remove_unfinished(utc_now()) == 1
    left = (await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {"subjects_filter": ">"}))["state"]["subjects"]
    assert len(left) == 5
    assert chunks_subject(old) not in left
    assert await store.remove_unfinished(utc_now() + LATER) == 1
    assert await payloads.fetch("op-1", kept, limit=10) == b"kept"


async def test_a_removal_that_was_cut_short(link: Connection, store: JetStreamStore, payloads: Payloads) -> None:
    """A remover that ends between its two steps leaves chunks without metadata, which the next walk removes."""
    ref = await payloads.store_payload("op-1", b"data")
    await ask(link, f"STREAM.PURGE.{PAYLOADS_STREAM}", {"filter": metadata_subject(ref.key)})
    assert [page async for page in store.older_than(utc_now() + LATER)] == []
    with pytest.raises(PayloadMissing):
        await payloads.fetch("op-1", ref, limit=10)
    assert await store.remove_unfinished(utc_now() + LATER) == 1
    assert (await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {}))["state"]["messages"] == 0


async def test_many_payloads(store: JetStreamStore, payloads: Payloads) -> None:
    """A walk finds all of them, page by page."""
    keys = {(await payloads.store_payload(f"op-{number}", b"1")).key for number in range(300)}
    pages = [page async for page in store.older_than(utc_now() + LATER)]
    assert {one.key for page in pages for one in page} == keys
    assert len(pages) == 2


async def test_three_replicas(cluster_link: Connection) -> None:
    """What three servers have is read at once, from whichever of them answers."""
    store = JetStreamStore(cluster_link, utc_now)
    await store.start()
    payloads = Payloads(store, lambda: str(uuid.uuid4()))
    for size in (10, 3 * CHUNK):
        data = numbered_bytes(size)
        ref = await payloads.store_payload("op-1", data)
        assert await payloads.fetch("op-1", ref, limit=size) == data
    await store.stop()


async def test_memory_stays_flat(payloads: Payloads, request: pytest.FixtureRequest) -> None:
    """Storing and reading 96 MiB (`make large`: 5 GiB) takes a few chunks of memory, not the payload's size."""
    size = request.config.getoption("payload_mib") * 1024 * 1024
    piece = numbered_bytes(CHUNK)

    async def source() -> AsyncGenerator[bytes, None]:
        for _ in range(size // CHUNK):
            yield piece

    tracemalloc.start()
    try:
        ref = await payloads.store_stream("op-1", source())
        read = 0
        async for found in payloads.stream("op-1", ref):
            read += len(found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (ref.size, read) == (size, size)
    assert peak < 16 * 1024 * 1024


async def test_roles(tmp_path: Path) -> None:
    """The API and a runner store and read with their own logins; the projector removes, and they can't."""
    with RoleBroker(tmp_path, [ActionAccess(Kind("book", "upload"))]) as broker:
        operator = await broker.connect("admin")
        await provision(operator, Sizing())
        data = numbered_bytes(2 * CHUNK + 1)
        refs: list[PayloadRef] = []
        for login in ("api", "runner"):
            link = await broker.connect(login)
            store = await open_store(StoreLocation(), link, utc_now)
            own = Payloads(store, lambda: str(uuid.uuid4()))
            refs.append(await own.store_payload("op-1", data))
            for ref in refs:
                assert await own.fetch("op-1", ref, limit=len(data)) == data
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await store.delete([refs[0].key])
            await link.close()
        link = await broker.connect("projector")
        store = await open_store(StoreLocation(), link, utc_now)
        pages = [page async for page in store.older_than(utc_now() + LATER)]
        assert {one.key for page in pages for one in page} == {ref.key for ref in refs}
        await store.delete([ref.key for ref in refs])
        assert [page async for page in store.older_than(utc_now() + LATER)] == []
        await link.close()
        await operator.close()


async def test_no_object_store_yet(link: Connection) -> None:
    """A broker that an earlier version has provisioned has none; the error says what to run."""
    await ask(link, f"STREAM.DELETE.{PAYLOADS_STREAM}", {})
    with pytest.raises(StoreUnavailable, match="opstream provision --update"):
        await open_store(StoreLocation(), link, utc_now)


async def test_one_identity(link: Connection) -> None:
    """Provisioning again, and an update of the stream, leave the identity as it is."""
    first = (await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {}))["config"]["metadata"]["opstream.installation"]
    await ask(link, f"STREAM.UPDATE.{PAYLOADS_STREAM}", await config_with(link, max_msg_size=1000))
    report = await provision(link, Sizing(), is_update=True)
    assert report.updated
    again = (await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {}))["config"]["metadata"]["opstream.installation"]
    assert (again, len(first)) == (first, 36)


async def config_with(link: Connection, **fields: Any) -> dict[str, Any]:
    info = await ask(link, f"STREAM.INFO.{PAYLOADS_STREAM}", {})
    return {**info["config"], **fields}


async def test_a_wrong_claim_check(payloads: Payloads) -> None:
    """Another size or hash than that of the event is damage, whatever the store says of itself."""
    ref = await payloads.store_payload("op-1", b"data")
    for wrong in (ref_of(ref.key, b"date"), ref_of(ref.key, b"dat"), ref_of(ref.key, b"data!")):
        with pytest.raises(PayloadDamaged):
            await payloads.fetch("op-1", wrong, limit=10)
