"""From how many events on a batch pays, and what a group commit does with events that must not share one."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest

from opstream_journal import BrokerRefused, JournalUnavailable
from opstream_journal.group_commit import MAX_EVENT_BYTES, MAX_MEMBERS, EncodedEvent, GroupCommit, SingleTime
from tests.support.journal.fake_stream import FakeStream

pytestmark = pytest.mark.unit


def message(number: int, *, size: int = 1) -> EncodedEvent:
    return EncodedEvent(f"op-{number}", "", b"x" * size, {}, 0)


async def slow_group(stream: FakeStream) -> GroupCommit:
    """A group whose clock says that a single event takes 10 ms, so that five events are worth a batch."""
    ticks = itertools.count()
    group = GroupCommit(stream.send_alone, stream.begin_batch, stream.last_sequences, clock=lambda: next(ticks) / 100)
    await group.publish(message(0), timeout=60)
    return group


@pytest.mark.parametrize(
    ("seconds", "least"),
    [(math.inf, MAX_MEMBERS), (0.0, MAX_MEMBERS), (0.0003, 24), (0.001, 10), (0.0025, 6), (0.1, 4)],
)
def test_a_slower_disk_makes_smaller_batches_pay(seconds: float, least: int) -> None:
    """On a quick disk a batch pays from some twenty events, on a slow one from few; unmeasured, never."""
    single = SingleTime()
    if seconds < math.inf:
        single.add(seconds, 100.0)
    assert single.least_batch == least


def test_the_shortest_time_counts_and_fades() -> None:
    """A delay of this process does not count as the disk's; a disk that has become slow is noticed within a minute."""
    single = SingleTime()
    single.add(0.0003, 100.0)
    single.add(0.1, 100.5)
    assert single.least_batch > 20
    for second in range(101, 161):
        single.add(0.0025, float(second))
    assert single.least_batch == 6


async def test_what_comes_meanwhile_shares_a_batch() -> None:
    """The first events go alone; those that come while they are being stored go together."""
    stream = FakeStream()
    group = await slow_group(stream)
    await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(1, 31)))
    assert len(stream.stored) == 31
    assert stream.batches[0] > 20


async def test_those_that_were_answered_join_those_that_wait() -> None:
    """After a batch the next one waits for a moment, so that writers do not take turns in two groups."""
    stream = FakeStream()
    group = await slow_group(stream)
    numbers = itertools.count(1)

    async def write() -> None:
        for _ in range(8):
            await group.publish(message(next(numbers)), timeout=60)

    await asyncio.gather(*(write() for _ in range(40)))
    assert len(stream.stored) == 1 + 8 * 40
    assert max(stream.batches) == 40


async def test_the_first_after_a_batch_waits_for_others() -> None:
    """Also if no event waits when a batch has ended: sent alone, the first ones would hold up those that follow."""
    stream = FakeStream()
    group = await slow_group(stream)
    await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(1, 31)))
    alone = len(stream.stored) - sum(stream.batches)
    await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(31, 51)))
    assert stream.batches[-1] == 20
    assert len(stream.stored) - sum(stream.batches) == alone


async def after_a_batch(stream: FakeStream) -> GroupCommit:
    """A group that has just stored a batch and gathers events for the next one."""
    group = await slow_group(stream)
    await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(1, 31)))
    assert group._is_gathering
    return group


async def test_the_next_batch_begins_with_its_first_event() -> None:
    """The broker makes its files while the other events come; all of them are stored together."""
    stream = FakeStream()
    group = await after_a_batch(stream)
    begun = len(stream.begun)
    later = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(31, 51)]
    await asyncio.sleep(0)
    assert group._is_gathering
    assert stream.begun[begun:] == ["op-31"]
    await asyncio.gather(*later)
    assert stream.begun[begun:] == ["op-31"]
    assert stream.batches[-1] == 20


async def test_a_batch_that_was_begun_and_stays_alone() -> None:
    """No other event comes: the batch ends with what it has."""
    stream = FakeStream()
    group = await after_a_batch(stream)
    assert await group.publish(message(31), timeout=60) == 32
    assert stream.batches[-1] == 1
    assert group._begun is None


async def test_the_first_caller_of_a_begun_batch_gives_up() -> None:
    """The broker has its event, so it is stored as after any cancelled publish; the others get their answers."""
    stream = FakeStream()
    group = await after_a_batch(stream)
    first, *others = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(31, 51)]
    await asyncio.sleep(0)
    first.cancel()
    sequences = await asyncio.gather(*others)
    assert [stream.stored[sequence - 1].operation_id for sequence in sequences] == [f"op-{n}" for n in range(32, 51)]
    assert stream.last("op-31") == 32


async def test_two_events_of_one_operation_and_a_begun_batch() -> None:
    """The one that the broker has is in the batch, the other is not, and is refused later."""
    stream = FakeStream()
    group = await after_a_batch(stream)
    twice = [asyncio.create_task(group.publish(message(31), timeout=60)) for _ in range(2)]
    others = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(32, 51)]
    await asyncio.gather(*others)
    one, two = await asyncio.gather(*twice, return_exceptions=True)
    assert one == 32
    assert isinstance(two, BrokerRefused)
    assert [event.operation_id for event in stream.stored].count("op-31") == 1


async def test_a_batch_that_could_not_be_begun_early() -> None:
    """A connection that is down when the first event comes, and up when all have come, delays nobody."""
    stream = FakeStream()
    group = await after_a_batch(stream)
    stream.is_away = True
    later = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(31, 51)]
    await asyncio.sleep(0)
    assert group._begun is None
    stream.is_away = False
    await asyncio.gather(*later)
    assert stream.batches[-1] == 20


async def test_a_batch_that_the_broker_has_forgotten() -> None:
    """The process was stopped for longer than the broker waits, or the broker restarted: each event goes alone."""
    fates = ["ok"]
    stream = FakeStream(lambda: fates[-1])
    group = await after_a_batch(stream)
    batches = len(stream.batches)
    fates.append("forgotten")
    sequences = await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(31, 51)))
    assert sorted(sequences) == list(range(32, 52))
    assert len(stream.batches) == batches


@pytest.mark.parametrize(
    ("seconds", "answered", "gathering"), [(0.0025, 1, 0.01), (0.0003, 64, 0.0012), (0.0025, 128, 0.02), (1, 256, 0.03)]
)
def test_how_long_the_next_batch_is_gathered(seconds: float, answered: int, gathering: float) -> None:
    """As long as four single events take, at most 10 ms; twice and three times as long after a large batch."""
    single = SingleTime()
    single.add(seconds, 100.0)
    assert single.gathering_time(answered) == pytest.approx(gathering)


async def test_a_caller_that_gives_up_holds_back_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was just told to send its event alone, and is cancelled before it does: the next one goes in its place."""
    stream = FakeStream()
    group = await slow_group(stream)
    stream.gate = asyncio.Event()
    tasks = {
        number: asyncio.create_task(group.publish(message(number), timeout=60), name=f"op-{number}")
        for number in range(1, 7)
    }
    for _ in range(3):
        await asyncio.sleep(0)
    assert (stream.open, len(group._waiting)) == (2, 4)
    go_on = group._go_on

    def go_on_and_cancel() -> None:
        go_on()
        held = {member.message.operation_id for member in group._waiting}
        for number in (3, 4, 5):
            if f"op-{number}" not in held:
                tasks[number].cancel()

    monkeypatch.setattr(group, "_go_on", go_on_and_cancel)
    stream.gate.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert [one.operation_id for one in stream.stored] == ["op-0", "op-1", "op-2", "op-6"]


async def test_after_a_full_batch_the_next_one_does_not_wait() -> None:
    """Enough events for another full batch are there already."""
    stream = FakeStream()
    group = await slow_group(stream)
    many = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(1, 3 * MAX_MEMBERS)]
    gathering = []
    while not all(one.done() for one in many):
        await asyncio.sleep(0)
        if len(group._waiting) >= MAX_MEMBERS:
            gathering.append(group._is_gathering)
    assert gathering
    assert not any(gathering)


async def test_a_stream_without_batches_is_not_held_back() -> None:
    """Where the stream takes no batches, all events are on their way at once: three servers group by themselves."""
    stream = FakeStream(allows_batches=False)
    group = await slow_group(stream)
    await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(1, 31)))
    stream.gate = asyncio.Event()
    later = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(31, 61)]
    for _ in range(5):
        await asyncio.sleep(0)  # they are sent
    assert stream.open == 30
    stream.gate.set()
    await asyncio.gather(*later)


async def test_a_large_event_goes_alone() -> None:
    """An event whose bytes cost more than a sync never waits for others, and never makes a batch large."""
    stream = FakeStream()
    group = await slow_group(stream)
    large = [group.publish(message(number, size=MAX_EVENT_BYTES + 1), timeout=60) for number in range(1, 31)]
    await asyncio.gather(*large)
    assert (len(stream.stored), stream.batches) == (31, [])


async def test_a_full_batch_leaves_the_rest_for_the_next() -> None:
    """No batch has more members than the broker takes easily; the others follow."""
    stream = FakeStream()
    group = await slow_group(stream)
    await asyncio.gather(*(group.publish(message(number), timeout=60) for number in range(1, 3 * MAX_MEMBERS)))
    assert len(stream.stored) == 3 * MAX_MEMBERS
    assert max(stream.batches) == MAX_MEMBERS


async def test_a_caller_that_waits_too_long() -> None:
    """An event that was not sent within its time is surely not stored, not even later."""
    stream = FakeStream()
    group = await slow_group(stream)
    stream.gate = asyncio.Event()
    first = [asyncio.create_task(group.publish(message(number), timeout=60)) for number in range(1, 6)]
    await asyncio.sleep(0)  # they are sent
    with pytest.raises(JournalUnavailable) as late:
        await group.publish(message(6), timeout=0.01)
    assert not late.value.maybe_stored
    stream.gate.set()
    await asyncio.gather(*first)
    assert stream.last("op-6") == 0
