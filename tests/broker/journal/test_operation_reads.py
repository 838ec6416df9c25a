"""Reads of one operation: complete up to its last event, whatever its length, its age, and foreign messages."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from opstream_journal import Connection, ExpectedVersion, Journal, JournalUnavailable
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import Event, Progressed, RecordedEvent, Succeeded, decode_event, encode_event
from opstream_schemas.operation.fold import fold, fold_for_reader
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, folded, following, linked, opened
from tests.support.schemas.histories import FromTheFuture, handed_back, request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def store(link: Connection, event: Event, *, name: str = "") -> int:
    """Publish an event without an expected version, and return its sequence."""
    subject = subjects.event_subject(event.operation_id, KIND, name or event.data.name)
    return (await link.nc.jetstream().publish(subject, encode_event(event))).seq


async def long_history(link: Connection, operation: Operation, count: int, *, text: str = "") -> list[Operation]:
    """The states of an operation that reports progress `count` times, among the events of another one."""
    states = [operation]
    stored = []
    for number in range(count):
        event = following(states[-1], Progressed(percent=number * 100 / count, message=text))
        sequence = states[-1].stream_sequence + (2 if number % 10 == 1 else 1)
        states.append(folded(states[-1], _as_stored(event, sequence)))
        stored.append((event, sequence))
    for number, (event, sequence) in enumerate(stored):
        if number % 10 == 1:
            await store(link, first(f"other-{number}"))
        assert await store(link, event) == sequence
    return states


def _as_stored(event: Event, sequence: int) -> RecordedEvent:
    return decode_event(encode_event(event), sequence)


async def test_nothing_is_there(journal: Journal) -> None:
    """An operation that was not requested has no last event and no events."""
    assert (await journal.last_message("op-1"), await journal.events("op-1")) == (None, [])


@pytest.mark.parametrize("count", [0, 1, 2, 30, 257, 1300])
async def test_a_history_of_any_length(journal: Journal, link: Connection, count: int) -> None:
    """Every event of an operation is read, in order, beyond any batch that the broker answers at once."""
    running = await extend(journal, await begin(journal, "op-1"), started())
    states = await long_history(link, running, count)
    ended = await extend(journal, states[-1], Succeeded(result=msgspec.Raw(b"{}")))
    assert folded(None, *await journal.events("op-1")) == ended
    for known in (states[0], states[len(states) // 2], states[-1], ended):
        assert folded(known, *await journal.events("op-1", since=known)) == ended


async def test_one_event_is_missing(journal: Journal) -> None:
    """The event between a known state and the last one is found, be it the start of the attempt or another."""
    waiting = await begin(journal, "op-1")
    running = await extend(journal, waiting, started(1))
    again = await extend(journal, running, handed_back(1, counted=True))
    states = [waiting, running, again]
    for data in (started(2, token="2"), Progressed(percent=50), Succeeded(result=msgspec.Raw(b"{}"))):
        states.append(await extend(journal, states[-1], data))
        assert folded(states[-3], *await journal.events("op-1", since=states[-3])) == states[-1]


async def test_a_history_of_large_events(journal: Journal, link: Connection) -> None:
    """A history of megabytes is read whole, also where the broker cuts its batches by bytes."""
    running = await extend(journal, await begin(journal, "op-1"), started())
    states = await long_history(link, running, 300, text="x" * 20_000)
    assert folded(None, *await journal.events("op-1")) == states[-1]
    assert folded(states[3], *await journal.events("op-1", since=states[3])) == states[-1]


async def test_a_known_state_has_nothing_new(journal: Journal) -> None:
    """Reading on from the last state gives nothing."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    assert await journal.events("op-1", since=operation) == []


async def test_a_floor_is_enough(journal: Journal) -> None:
    """Events after the given last one are not part of the read up to it."""
    operation = await extend(journal, await begin(journal, "op-1"), started(), Progressed(percent=1))
    floor = await journal.last_message("op-1")
    assert floor is not None
    await extend(journal, operation, *[Progressed(percent=n) for n in range(5)])
    assert folded(None, *await journal.events_up_to(floor)) == operation


async def test_reads_while_it_grows(journal: Journal) -> None:
    """Readers that race with a writer always see a whole beginning of the history, and never less than before."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    is_over = asyncio.Event()

    async def read_on() -> int:
        reads = seen = 0
        while not is_over.is_set():
            state = folded(None, *await journal.events("op-1"))
            assert state.position >= seen
            seen = state.position
            reads += 1
        return reads

    readers = [asyncio.create_task(read_on()) for _ in range(4)]
    operation = await extend(journal, operation, *[Progressed(percent=n % 100) for n in range(150)])
    is_over.set()
    assert min(await asyncio.gather(*readers)) > 0
    assert folded(None, *await journal.events("op-1")) == operation


async def test_an_expired_beginning(broker: Broker) -> None:
    """An operation of which only the end is left has no events, and can't be extended from an old state."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
        journal = await opened(link)
        operation = await extend(journal, await begin(journal, "op-1"), started())
        js = link.nc.jetstream()
        info = await js.stream_info(subjects.OPERATIONS_STREAM)
        await js.update_stream(info.config.evolve(max_age=1.0, duplicate_window=1.0))
        await eventually(lambda: _first_sequence(link, operation.stream_sequence + 1), within=10)
        await js.update_stream(info.config)
        ended = await extend_blindly(link, operation)
        assert await journal.events("op-1") == []
        assert [event.position for event in await journal.events("op-1", since=ended[0])] == [4, 5]
        holed = await journal.events("op-1", since=operation)
        assert [event.position for event in holed] == [3, 4, 5]


async def _first_sequence(link: Connection, sequence: int) -> bool:
    state = (await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)).state
    return state.first_seq >= sequence


async def extend_blindly(link: Connection, operation: Operation) -> list[Operation]:
    """Append three more events, without an expected version."""
    states = []
    for number in range(3):
        event = following(operation, Progressed(percent=number))
        operation = folded(operation, _as_stored(event, await store(link, event)))
        states.append(operation)
    return states


async def test_only_the_last_event_is_left(broker: Broker) -> None:
    """An operation of which nothing but the last event is left has no events."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
        journal = await opened(link)
        operation = await extend(journal, await begin(journal, "op-1"), started())
        await store(link, following(operation, Progressed(percent=1)))
        js = link.nc.jetstream()
        info = await js.stream_info(subjects.OPERATIONS_STREAM)
        await js.update_stream(info.config.evolve(max_msgs=1, discard="old"))
        assert await journal.last_message("op-1") is not None
        assert await journal.events("op-1") == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff\xfe", b"{", b"[1]", b"null", b'{"specversion":"1.0"}', b"[" * 100_000, b'{"id":"\xff"}'],
    ids=["empty", "no-utf8", "cut", "list", "null", "other", "deep", "text"],
)
async def test_garbage(journal: Journal, link: Connection, garbage: bytes) -> None:
    """Bytes under an operation's subject that are no event are named as that, first, last or in between."""
    js = link.nc.jetstream()
    await js.publish(subjects.event_subject("op-1", KIND, "requested"), garbage)
    operation = await begin(journal, "op-2")
    await js.publish(subjects.event_subject("op-2", KIND, "progressed"), garbage)
    between = await extend(journal, await begin(journal, "op-3"), started())
    await js.publish(subjects.event_subject("op-3", KIND, "progressed"), garbage)
    await store(link, following(between, Succeeded(result=msgspec.Raw(b"1"))))
    for operation_id in ("op-1", "op-2"):
        with pytest.raises(InvalidEvent):
            await journal.events(operation_id)
    with pytest.raises(InvalidEvent):
        await journal.events("op-2", since=operation)
    assert await read_or_name(journal, "op-3") in {"InvalidEvent", "FoldRefused"}


async def read_or_name(journal: Journal, operation_id: str) -> str:
    """The name of the error that keeps an operation from being folded."""
    try:
        fold_for_reader(None, await asyncio.wait_for(journal.events(operation_id), 5))
    except (InvalidEvent, FoldRefused) as error:
        return type(error).__name__
    return ""


@pytest.mark.parametrize("position", [1, 2, 4, 5, 300, 2**31 - 1])
async def test_an_event_that_lies_about_its_position(journal: Journal, link: Connection, position: int) -> None:
    """An event with a wrong position makes the fold refuse; the read neither hangs nor claims to be unavailable."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    liar = msgspec.structs.replace(following(operation, Progressed(percent=1)), position=position)
    await store(link, liar)
    for known in (None, operation):
        with pytest.raises(FoldRefused):
            fold_for_reader(known, await asyncio.wait_for(journal.events("op-1", since=known), 5))


@pytest.mark.parametrize("before", [1, 2])
async def test_requested_twice(journal: Journal, link: Connection, before: int) -> None:
    """A second `requested` that was stored without an expected version is not taken for the first event."""
    operation = await begin(journal, "op-1")
    if before == 2:
        operation = await extend(journal, operation, started())
    await store(link, first("op-1"))
    for known in (None, operation):
        with pytest.raises(FoldRefused):
            fold_for_reader(known, await journal.events("op-1", since=known))


async def test_a_guarded_first_event_is_read_once(journal: Journal, link: Connection) -> None:
    """The expected version in the stored headers shows that nothing comes before the event, without another read."""
    sequence = (await begin(journal, "op-1")).stream_sequence
    floor = await journal.last_message("op-1")
    assert floor is not None
    assert floor.seq == sequence
    before = link.nc.stats["out_msgs"]
    assert len(await journal.events_up_to(floor)) == 1
    assert link.nc.stats["out_msgs"] == before


async def test_another_operations_event(journal: Journal, link: Connection) -> None:
    """What lies under an operation's subjects and is another one's is never taken for it, alone or at its end."""
    js = link.nc.jetstream()
    other = encode_event(first("op-2"))
    await js.publish(subjects.event_subject("op-1", KIND, "requested"), other)
    operation = await begin(journal, "op-3")
    await js.publish(subjects.event_subject("op-3", KIND, "started"), other)
    for operation_id, known in (("op-1", None), ("op-3", None), ("op-3", operation)):
        with pytest.raises(InvalidEvent, match="is an event of operation op-2"):
            await journal.events(operation_id, since=known)


async def test_requested_without_a_guard(journal: Journal, link: Connection) -> None:
    """A first event is read, whichever way it was stored."""
    sequence = await store(link, first("op-1"))
    assert [event.sequence for event in await journal.events("op-1")] == [sequence]


async def test_an_event_of_the_future(journal: Journal, link: Connection) -> None:
    """An event of a type that this code does not know is read; the fold of a writer refuses it."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    await store(link, following(operation, FromTheFuture()), name="progressed")
    events = await journal.events("op-1")
    assert [event.data is None for event in events] == [False, False, True]
    with pytest.raises(FoldRefused):
        fold(None, events)


async def test_another_operation_with_a_longer_name(journal: Journal) -> None:
    """Ids that begin with each other are different operations."""
    one, two = await begin(journal, "op"), await begin(journal, "op-1")
    assert [event.operation_id for event in await journal.events("op")] == [one.id]
    assert [event.operation_id for event in await journal.events("op-1")] == [two.id]


async def test_without_a_broker(broker: Broker, journal: Journal, link: Connection) -> None:
    """Reads fail at once while there is no broker, and work again when it is back."""
    operation = await extend(journal, await begin(journal, "op-1"), started())
    broker.kill()
    await eventually(lambda: not link.is_connected)
    for question in (journal.last_message("op-1"), journal.events("op-1"), journal.events("op-1", since=operation)):
        with pytest.raises(JournalUnavailable):
            await asyncio.wait_for(question, 0.2)
    broker.start()
    await eventually(lambda: link.is_connected)
    assert folded(None, *await journal.events("op-1")) == operation


async def test_a_stream_without_direct_reads(journal: Journal, link: Connection) -> None:
    """Where replicas may not answer, the leader does."""
    operation = await extend(
        journal, await begin(journal, "op-1"), started(), *[Progressed(percent=n) for n in range(9)]
    )
    js = link.nc.jetstream()
    info = await js.stream_info(subjects.OPERATIONS_STREAM)
    await js.update_stream(info.config.evolve(allow_direct=False))
    assert folded(None, *await journal.events("op-1")) == operation


async def test_the_largest_input(journal: Journal) -> None:
    """An input as large as the limit allows is read back unchanged."""
    action_input = msgspec.Raw(b'"%s"' % (b"x" * 256 * 1024))
    event = first("op-1", data=request(input=action_input))
    recorded = await journal.append(KIND, event, ExpectedVersion(0), budget=5)
    assert await journal.events("op-1") == [recorded]


async def test_a_part_of_a_long_history(journal: Journal, link: Connection) -> None:
    """From any event on, as many as are asked for, without those of others in between."""
    running = await extend(journal, await begin(journal, "op-1"), started())
    states = await long_history(link, running, 100)
    for index, count in ((0, 1), (10, 32), (99, 2), (100, 1)):
        events = await journal.page("op-1", states[index].stream_sequence, count)
        assert [event.sequence for event in events] == [one.stream_sequence for one in states[index : index + count]]


async def test_a_part_that_is_not_there(journal: Journal) -> None:
    """What the leader does not have is never passed over in silence."""
    operation = await begin(journal, "op-1")
    other = await begin(journal, "op-2")
    for sequence in (other.stream_sequence, other.stream_sequence + 1):
        with pytest.raises(JournalUnavailable, match="lost"):
            await journal.page(operation.id, sequence, 1)


@pytest.mark.parametrize(("repeated", "is_scanned"), [(2, False), (8, False), (9, False), (12, True)])
async def test_repeated_events_far_apart(
    journal: Journal, link: Connection, repeated: int, *, is_scanned: bool
) -> None:
    """Some events of one type are found by the links between them; the broker looks through no others."""
    known = running = await extend(journal, await begin(journal, "op-1"), started())
    for number in range(repeated):
        await asyncio.gather(*(store(link, first(f"other-{number}-{other}")) for other in range(150)))
        running = await extend(journal, running, Progressed(percent=number))
    requests = await link.nc.subscribe(f"$JS.API.DIRECT.GET.{subjects.OPERATIONS_STREAM}")
    read = await journal.events("op-1", since=known)
    assert [event.position for event in read] == list(range(3, repeated + 3))
    assert folded(known, *read) == running
    assert folded(None, *await journal.events("op-1")) == running
    await link.nc.flush()
    seen = [json.loads(requests._pending_queue.get_nowait().data) for _ in range(requests.pending_msgs)]
    assert any("next_by_subj" in one for one in seen) == is_scanned


async def test_a_link_that_leads_astray(journal: Journal, link: Connection) -> None:
    """Where the event before is not at the expected version, the operation is read in order."""
    known = running = await extend(journal, await begin(journal, "op-1"), started())
    for number in range(3):
        await asyncio.gather(*(store(link, first(f"other-{number}-{other}")) for other in range(150)))
        event = following(running, Progressed(percent=number))
        running = folded(running, _as_stored(event, await store(link, event)))
    assert folded(known, *await journal.events("op-1", since=known)) == running
    assert folded(None, *await journal.events("op-1")) == running
