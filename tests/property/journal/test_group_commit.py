"""Whatever is refused, lost, dropped or cancelled: a group commit answers truly, and stores nothing twice."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_journal import BrokerRefused, JournalUnavailable
from opstream_journal.group_commit import EncodedEvent, GroupCommit
from tests.support.journal.fake_stream import FakeStream

pytestmark = pytest.mark.unit

_SECONDS: Final = 60.0

_FATES: Final = st.lists(st.sampled_from(["ok", "ok", "ok", "lost", "dropped", "forgotten"]), max_size=40)
_APPENDS: Final = st.lists(
    st.tuples(
        st.integers(0, 1),  # the process
        st.integers(0, 19),  # the operation
        st.integers(0, 8),  # turns of the event loop before it is sent
        st.one_of(st.none(), st.none(), st.integers(0, 12)),  # turns until it is cancelled
    ),
    min_size=12,
    max_size=60,
)


def _message(number: int, operation: int) -> EncodedEvent:
    return EncodedEvent(f"op-{operation}", "", b"%d" % number, {}, 0)


def _group(stream: FakeStream) -> GroupCommit:
    ticks = itertools.count()
    # Each look at the clock takes 10 ms: a single event seems to take as long, so small batches pay.
    return GroupCommit(stream.send_alone, stream.begin_batch, stream.last_sequences, clock=lambda: next(ticks) / 100)


async def _run(appends: list[tuple[int, int, int, int | None]], fates: list[str], *, allows_batches: bool) -> None:
    remaining = iter(fates)
    stream = FakeStream(lambda: next(remaining, "ok"), allows_batches=allows_batches)
    groups = [_group(stream), _group(stream)]
    answers: dict[int, object] = {}

    async def append(number: int, process: int, operation: int, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            answers[number] = await groups[process].publish(_message(number, operation), timeout=_SECONDS)
        except (BrokerRefused, JournalUnavailable) as error:
            answers[number] = error

    async def cancel(task: asyncio.Task[None], turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    async with asyncio.timeout(_SECONDS):
        warm = [group.publish(_message(-1 - at, 100 + at), timeout=_SECONDS) for at, group in enumerate(groups)]
        await asyncio.gather(*warm, return_exceptions=True)
        tasks = [asyncio.create_task(append(number, *one[:3])) for number, one in enumerate(appends)]
        cancels = [cancel(task, one[3]) for task, one in zip(tasks, appends, strict=True) if one[3] is not None]
        await asyncio.gather(*tasks, *cancels, return_exceptions=True)
        # What a cancelled caller left in flight ends, too.
        await asyncio.gather(
            *(group.publish(_message(-10 - at, 200 + at), timeout=_SECONDS) for at, group in enumerate(groups)),
            return_exceptions=True,
        )

    numbers = [int(message.payload) for message in stream.stored]
    assert len(numbers) == len(set(numbers)), "an event is stored twice"
    operations = [message.operation_id for message in stream.stored]
    assert len(operations) == len(set(operations)), "two events with one expected version are stored"
    for number, answer in answers.items():
        if isinstance(answer, int):
            assert numbers[answer - 1] == number
        elif isinstance(answer, BrokerRefused) or (isinstance(answer, JournalUnavailable) and not answer.maybe_stored):
            assert number not in numbers
    for number, append_ in enumerate(appends):
        assert number in answers or append_[3] is not None, "a caller got no answer"


@given(appends=_APPENDS, fates=_FATES, allows_batches=st.booleans())
def test_answers_are_true(
    appends: list[tuple[int, int, int, int | None]], fates: list[str], *, allows_batches: bool
) -> None:
    """Two processes append to a few operations at the same time, each at most one event that the stream may take."""
    asyncio.run(_run(appends, fates, allows_batches=allows_batches))
