"""Append with an expected version on one broker: retries, conflicts, limits, budget, and the stream afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_journal import (
    NEW_OPERATION,
    UNTIL_STORED,
    Connection,
    EventTooLarge,
    ExpectedVersion,
    Journal,
    JournalFull,
    JournalUnavailable,
    VersionConflict,
)
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Canceled, Progressed, Succeeded, decode_event
from opstream_schemas.names import Kind
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, folded, following, linked, opened, race
from tests.support.schemas.histories import FromTheFuture, request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def count(link: Connection) -> int:
    """Return the number of messages in the journal's stream."""
    return (await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)).state.messages


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    async with Proxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: Proxy, link: Connection) -> AsyncIterator[Journal]:
    """A journal behind the proxy; `link` looks at the broker directly."""
    async with linked(proxy.url) as far_link:
        yield await opened(far_link)
        proxy.unmute()


async def test_what_append_returns_is_what_is_stored(journal: Journal) -> None:
    """The recorded event of an append equals the one that is read later, to the byte that its digest covers."""
    event = await journal.append(KIND, first("op-1"), NEW_OPERATION, budget=5)
    more = await journal.append(
        KIND, following(folded(None, event), started()), ExpectedVersion(event.sequence), budget=5
    )
    assert await journal.events("op-1") == [event, more]


async def test_the_same_bytes_again_are_found(journal: Journal, link: Connection) -> None:
    """A retry of a stored event (err_code 10071 on one broker) returns where it is, and stores nothing."""
    event = first("op-1")
    once = await journal.append(KIND, event, NEW_OPERATION, budget=5)
    again = await journal.append(KIND, event, NEW_OPERATION, budget=5)
    assert (again, await count(link)) == (once, 1)


async def test_the_same_bytes_again_are_found_below_later_events(journal: Journal, link: Connection) -> None:
    """A retry finds its event also after others have extended the operation."""
    event = first("op-1")
    once = await journal.append(KIND, event, NEW_OPERATION, budget=5)
    operation = await extend(journal, folded(None, once), started(), *[Progressed(percent=n) for n in range(5)])
    again = await journal.append(KIND, event, NEW_OPERATION, budget=5)
    assert (again, await count(link)) == (once, operation.position)


async def test_a_conflict_says_both_versions(journal: Journal) -> None:
    """An append to a state that is not the last raises with both versions."""
    operation = await begin(journal, "op-1")
    newer = await extend(journal, operation, started())
    with pytest.raises(VersionConflict) as conflict:
        await journal.append(
            KIND, following(operation, Canceled()), ExpectedVersion(operation.stream_sequence), budget=5
        )
    assert (conflict.value.expected, conflict.value.actual) == (operation.stream_sequence, newer.stream_sequence)


async def test_an_id_exists_once_whatever_the_action(journal: Journal) -> None:
    """A first event under an id that another action has is a conflict."""
    operation = await begin(journal, "op-1")
    other = first("op-1", data=request(resource="car", action="wash"))
    with pytest.raises(VersionConflict) as conflict:
        await journal.append(Kind("car", "wash"), other, NEW_OPERATION, budget=5)
    assert (conflict.value.expected, conflict.value.actual) == (0, operation.stream_sequence)


async def test_a_writer_that_saw_more_than_there_is(journal: Journal) -> None:
    """Events that were seen and are gone (expired, or lost with a disk) end in a conflict, not in endless retries."""
    operation = await begin(journal, "op-1")
    ahead = ExpectedVersion(operation.stream_sequence + 7)
    async with asyncio.timeout(5):
        with pytest.raises(VersionConflict) as conflict:
            await journal.append(KIND, following(operation, started()), ahead, budget=UNTIL_STORED)
    assert (conflict.value.expected, conflict.value.actual) == (ahead, operation.stream_sequence)


async def test_a_writer_whose_operation_is_gone(journal: Journal) -> None:
    """An operation without any event left can't be extended."""
    operation = msgspec.structs.replace(await begin(journal, "op-1"), id="op-2")
    async with asyncio.timeout(5):
        with pytest.raises(VersionConflict) as conflict:
            await journal.append(KIND, following(operation, started()), ExpectedVersion(1), budget=UNTIL_STORED)
    assert (conflict.value.expected, conflict.value.actual) == (1, 0)


async def test_racing_writers(broker: Broker, link: Connection, journal: Journal) -> None:
    """Of eight writers on two connections that extend the same state, exactly one wins each of fifty rounds."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    async with linked(broker.url) as other:
        journals = [journal, await opened(other)]
        operation = await race(journals, operation, writers=8, rounds=50)
    assert len(await journal.events("op-1")) == 52


async def test_an_answer_that_is_lost(
    far: Journal, proxy: Proxy, link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, but the connection broke before the acknowledgement came: the retry finds it."""
    monkeypatch.setattr(rpc, "CALL_TIMEOUT", 0.3)
    proxy.mute()
    append = asyncio.create_task(far.append(KIND, first("op-1"), NEW_OPERATION, budget=10))
    await eventually(lambda: count(link))
    proxy.cut()
    event = await append
    assert (event.sequence, await count(link)) == (1, 1)


async def test_an_answer_that_comes_late(
    far: Journal, proxy: Proxy, link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, but the acknowledgement came after the timeout: the retry finds it."""
    monkeypatch.setattr(rpc, "CALL_TIMEOUT", 0.1)
    proxy.mute()
    append = asyncio.create_task(far.append(KIND, first("op-1"), NEW_OPERATION, budget=10))
    await eventually(lambda: count(link))
    _, pending = await asyncio.wait([append], timeout=0.3)
    assert pending == {append}
    proxy.unmute()
    event = await append
    assert (event.sequence, await count(link)) == (1, 1)


async def test_an_exhausted_budget_after_the_store(far: Journal, proxy: Proxy, link: Connection) -> None:
    """Without an answer the append raises in time, says that the event may be stored, and may be repeated."""
    event = first("op-1")
    proxy.mute()
    began = time.monotonic()
    with pytest.raises(JournalUnavailable) as unavailable:
        await far.append(KIND, event, NEW_OPERATION, budget=0.5)
    took = time.monotonic() - began
    assert unavailable.value.maybe_stored
    assert took < 0.5 + 0.3
    proxy.unmute()
    again = await far.append(KIND, event, NEW_OPERATION, budget=5)
    assert (again.sequence, await count(link)) == (1, 1)


async def test_the_budget_of_a_submit_holds(broker: Broker, journal: Journal) -> None:
    """With a broker that is stopped in its tracks, 4.5 s are 4.5 s, and the event may be stored."""
    broker.pause()
    began = time.monotonic()
    with pytest.raises(JournalUnavailable) as unavailable:
        await journal.append(KIND, first("op-1"), NEW_OPERATION, budget=4.5)
    took = time.monotonic() - began
    broker.resume()
    assert unavailable.value.maybe_stored
    assert 4.0 < took < 4.5 + 0.3


async def test_disconnected_is_refused_and_not_buffered(broker: Broker, journal: Journal, link: Connection) -> None:
    """What was given up while there was no connection is not stored when there is one again."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    began = time.monotonic()
    with pytest.raises(JournalUnavailable) as unavailable:
        await journal.append(KIND, first("op-1"), NEW_OPERATION, budget=0.3)
    took = time.monotonic() - began
    assert not unavailable.value.maybe_stored
    assert took < 0.3 + 0.2
    broker.start()
    await eventually(lambda: link.is_connected)
    await begin(journal, "op-2")
    assert (await journal.events("op-1"), await count(link)) == ([], 1)


async def test_nothing_is_buffered_below_the_journal(broker: Broker, link: Connection) -> None:
    """The client itself refuses to publish while disconnected, so that no caller of it can leave something behind."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    await asyncio.gather(
        link.nc.publish("operations.op-1.book.upload-start.requested", b"buffered?"), return_exceptions=True
    )
    broker.start()
    await eventually(lambda: link.is_connected)
    await link.nc.flush()
    assert await count(link) == 0


async def test_a_broker_that_comes_back_within_the_budget(broker: Broker, journal: Journal) -> None:
    """An append waits for the broker to come back as long as its budget lasts."""
    broker.kill()
    append = asyncio.create_task(journal.append(KIND, first("op-1"), NEW_OPERATION, budget=10))
    await asyncio.to_thread(broker.start)
    assert (await append).sequence == 1


async def test_a_killed_broker_keeps_what_it_acknowledged(broker: Broker, journal: Journal) -> None:
    """After SIGKILL in the middle of appends every acknowledged event is there once, in order."""

    async def append_all() -> list[int]:
        operation = await extend(journal, await begin(journal, "op-1"), started())
        sequences = [operation.stream_sequence]
        for n in range(100):
            operation = await extend(journal, operation, Progressed(percent=n))
            sequences.append(operation.stream_sequence)
        return sequences

    appends = asyncio.create_task(append_all())
    for seen in (10, 60):
        await eventually(lambda seen=seen: _has_reached(journal, seen))
        broker.kill()
        await asyncio.to_thread(broker.start)
    sequences = await appends
    events = await journal.events("op-1")
    assert [event.sequence for event in events[1:]] == sequences
    assert folded(None, *events).position == 102


async def _has_reached(journal: Journal, position: int) -> bool:
    try:
        last = await journal.last_message("op-1")
    except JournalUnavailable:
        return False
    return last is not None and decode_event(last.data, last.seq).position >= position


async def test_a_broker_that_takes_nothing_takes_no_memory(broker: Broker, journal: Journal, link: Connection) -> None:
    """While a broker reads nothing, appends end within their budget and pile up a bounded number of bytes."""
    broker.pause()
    big = request(input=msgspec.Raw(b'"%s"' % (b"x" * 250_000)))
    began = time.monotonic()
    answers = await asyncio.gather(
        *(journal.append(KIND, first(f"op-{n}", data=big), NEW_OPERATION, budget=1) for n in range(60)),
        return_exceptions=True,
    )
    took = time.monotonic() - began
    pending = link.nc.pending_data_size
    broker.resume()
    assert {type(answer) for answer in answers} == {JournalUnavailable}
    assert pending < 2_000_000
    assert took < 1 + 1


async def test_a_full_journal(broker: Broker) -> None:
    """At `max_bytes` an append says at once that the journal is full (err_code 10077), and stores nothing."""
    big = request(input=msgspec.Raw(b'"%s"' % (b"x" * 20_000)))
    stored = 0

    async def fill(journal: Journal) -> None:
        nonlocal stored
        while True:
            await journal.append(KIND, first(f"op-{stored}", data=big), NEW_OPERATION, budget=UNTIL_STORED)
            stored += 1

    async with linked(broker.url) as link:
        await provision(link, Sizing(max_bytes=64 * 1024, max_msg_size=32 * 1024))
        journal = await opened(link)
        with pytest.raises(JournalFull):
            await fill(journal)
        assert (await count(link), await journal.last_message(f"op-{stored}")) == (stored, None)


async def test_an_event_that_is_too_large_is_not_sent(journal: Journal, link: Connection) -> None:
    """An event beyond the stream's `max_msg_size` is refused before it is sent."""
    sent = link.nc.stats["out_msgs"]
    big = request(input=msgspec.Raw(b'"%s"' % (b"x" * Sizing().max_msg_size)))
    with pytest.raises(EventTooLarge):
        await journal.append(KIND, first("op-1", data=big), NEW_OPERATION, budget=5)
    assert link.nc.stats["out_msgs"] == sent


async def test_the_largest_event_that_is_sent_is_stored(journal: Journal) -> None:
    """What passes the check of the size is small enough for the broker, headers included."""
    size = Sizing().max_msg_size
    too_large = True
    while too_large:
        size -= 100
        try:
            data = request(input=msgspec.Raw(b'"%s"' % (b"x" * size)))
            event = await journal.append(KIND, first("o" * 64, data=data, event_id="e" * 64), NEW_OPERATION, budget=5)
            too_large = False
        except EventTooLarge:
            assert size > Sizing().max_msg_size - 4096
    assert event.sequence == 1


async def test_the_stream_may_take_less_than_it_did(journal: Journal, link: Connection) -> None:
    """A limit that was lowered since the start is an EventTooLarge too (err_code 10054)."""
    js = link.nc.jetstream()
    info = await js.stream_info(subjects.OPERATIONS_STREAM)
    await js.update_stream(info.config.evolve(max_msg_size=1_000))
    with pytest.raises(EventTooLarge):
        await journal.append(KIND, first("op-1", data=request(caller="x" * 2_000)), NEW_OPERATION, budget=UNTIL_STORED)
    assert await count(link) == 0


async def test_a_stream_without_limit_still_has_the_brokers() -> None:
    """Also without `max_msg_size`, nothing is sent that would make the broker close the connection."""
    refused = []
    with Broker(extra="max_payload: 100000") as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing(max_msg_size=-1))
            journal = await opened(link, max_msg_size=-1)
            for size in range(98_000, 100_200, 100):
                data = request(input=msgspec.Raw(b'"%s"' % (b"x" * size)))
                try:
                    await journal.append(KIND, first(f"op-{size}", data=data), NEW_OPERATION, budget=5)
                except EventTooLarge:
                    refused.append(size)
            assert (link.nc.stats["reconnects"], link.nc.is_closed) == (0, False)
    assert refused == list(range(refused[0], 100_200, 100))


async def test_a_foreign_event_type_finds_no_stream(journal: Journal, link: Connection) -> None:
    """An event of a type that the stream does not list gets no answer and is not stored."""
    operation = await begin(journal, "op-1")
    event = following(operation, FromTheFuture())
    with pytest.raises(JournalUnavailable) as unavailable:
        await journal.append(KIND, event, ExpectedVersion(operation.stream_sequence), budget=0.3)
    assert (unavailable.value.maybe_stored, await count(link)) == (False, 1)


async def test_an_event_that_nobody_could_decode_is_not_sent(journal: Journal, link: Connection) -> None:
    """Broken JSON in a result is refused before it is sent."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    event = following(operation, Succeeded(result=msgspec.Raw(b'{"broken')))
    with pytest.raises(InvalidEvent):
        await journal.append(KIND, event, ExpectedVersion(operation.stream_sequence), budget=5)
    assert await count(link) == 2


async def test_foreign_bytes_in_the_way(journal: Journal, link: Connection) -> None:
    """An operation with a foreign message is in conflict for every writer."""
    operation = await begin(journal, "op-1")
    ack = await link.nc.jetstream().publish(subjects.event_subject("op-1", KIND, "progressed"), b"\xff\xfe not JSON")
    async with asyncio.timeout(5):
        with pytest.raises(VersionConflict) as conflict:
            await journal.append(
                KIND, following(operation, started()), ExpectedVersion(operation.stream_sequence), budget=UNTIL_STORED
            )
    assert (conflict.value.expected, conflict.value.actual) == (operation.stream_sequence, ack.seq)


async def test_nothing_can_be_deleted_or_purged(journal: Journal, link: Connection) -> None:
    """The broker refuses to delete or purge events of the journal."""
    operation = await begin(journal, "op-1")
    js = link.nc.jetstream()
    for attempt in (
        js.delete_msg(subjects.OPERATIONS_STREAM, operation.stream_sequence),
        js.purge_stream(subjects.OPERATIONS_STREAM),
    ):
        with pytest.raises(Exception, match=r"not permitted|message delete|purge"):
            await attempt
    assert [event.sequence for event in await journal.events("op-1")] == [operation.stream_sequence]


async def test_a_canceled_append_leaves_nothing_behind(broker: Broker, journal: Journal, link: Connection) -> None:
    """A task that is canceled while it appends ends at once, and the connection keeps nothing of it."""
    broker.pause()
    append = asyncio.create_task(journal.append(KIND, first("op-1"), NEW_OPERATION, budget=UNTIL_STORED))
    await asyncio.wait([append], timeout=0.1)
    append.cancel()
    await asyncio.wait([append], timeout=1)
    broker.resume()
    assert append.cancelled()
    assert link.inbox._pending == {}


async def test_a_cancellation_in_the_moment_of_the_answer(journal: Journal, link: Connection) -> None:
    """A task that is canceled while its answer arrives is canceled all the same."""
    await begin(journal, "op-1")
    append = asyncio.create_task(journal.append(KIND, first("op-2"), NEW_OPERATION, budget=5))
    receivers = link.nc._ps._receivers
    number, take = next((number, one) for number, one in receivers.items() if one == link.inbox._receive)

    def take_and_cancel(message: ReceivedMessage) -> None:
        take(message)
        append.cancel()

    receivers[number] = take_and_cancel
    await asyncio.wait([append], timeout=5)
    receivers[number] = take
    assert append.cancelled()
