"""Writing many snapshots at once: what goes into a batch, what does not, and what is done if a batch is refused."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from opstream_journal import SnapshotEntry
from opstream_projector.projection.batch_writer import MAX_BATCH, BatchWriter, plan_write
from opstream_projector.projection.snapshot_cache import SnapshotCache
from opstream_schemas.events import Succeeded
from opstream_schemas.operation.state import Operation
from tests.support.projector.replicas import MemoryEntries, MemoryView, interleave
from tests.support.schemas.histories import NOW, History, request, started

pytestmark = pytest.mark.unit

RESULT = Succeeded(result=msgspec.Raw(b'{"ok":true}'))
NOTHING = SnapshotEntry(0, None)


def history(name: str = "op-1", *, result: Succeeded = RESULT) -> History:
    return History(name).append(request(retention=100.0), started(), result)


def projected(view: MemoryView, histories: list[History], *, least: int = 2, first: int = 0) -> dict[str, Operation]:
    """Project the events of many operations, those before `first` left out; return what was stored at once."""
    cache = SnapshotCache(max_entries=100, max_bytes=2**30)
    writer = BatchWriter(view, MemoryEntries(view), cache, now=lambda: NOW, least=least)
    found: dict[str, Operation] = {}

    async def run() -> None:
        found.update(await writer.project({one.id: one.events[first:] for one in histories}))

    interleave([run()], lambda _: 0)
    return found


def test_one_batch_for_all() -> None:
    """Many operations are one batch, each at its last state and with its time to live, and nothing is read."""
    view, histories = MemoryView(), [history(f"op-{number}") for number in range(20)]

    stored = projected(view, histories)

    assert stored == {one.id: one.operation for one in histories}
    assert [len(batch) for batch in view.batches] == [20]
    assert [view.written(one.id) for one in histories] == [[one.operation] for one in histories]
    assert {view.ttl(one.id) for one in histories} == {102.0}
    assert view.reads == 0


def test_few_are_left() -> None:
    """Below the least number there is no batch."""
    view = MemoryView()

    assert projected(view, [history("op-1"), history("op-2")], least=3) == {}
    assert view.batches == []


def test_more_than_a_batch_holds() -> None:
    """They are cut, and the short rest is left."""
    view, histories = MemoryView(), [history(f"op-{number}") for number in range(MAX_BATCH + 1)]

    assert len(projected(view, histories)) == MAX_BATCH
    assert [len(batch) for batch in view.batches] == [MAX_BATCH]


def test_large_ones_are_cut_by_bytes() -> None:
    """A batch holds less than its number if its snapshots are large."""
    view = MemoryView()
    histories = [history(f"op-{n}", result=Succeeded(result=msgspec.Raw(b'"%b"' % (b"x" * 50_000)))) for n in range(90)]

    assert len(projected(view, histories)) == 90
    assert [len(batch) for batch in view.batches] == [40, 40, 10]


def test_one_conflict_in_the_middle() -> None:
    """The refused batch is planned again with what the view holds; what another replica finished is left out."""
    view, histories = MemoryView(), [history(f"op-{number}") for number in range(20)]
    view.plant("op-7", histories[7].states[0])
    view.plant("op-8", histories[8].operation)

    stored = projected(view, histories)

    assert [len(batch) for batch in view.batches] == [20, 19]
    assert set(stored) == {one.id for one in histories} - {"op-8"}
    assert view.stored("op-7") == histories[7].operation
    assert len(view.written("op-8")) == 1


def test_a_second_conflict() -> None:
    """After two refusals nothing is stored, and all are left."""
    view, histories = MemoryView(), [history(f"op-{number}") for number in range(20)]
    view.plant("op-7", histories[7].states[0])
    view.is_behind = lambda: True

    assert projected(view, histories) == {}
    assert [len(batch) for batch in view.batches] == [20, 20]


@pytest.mark.parametrize("fault", ["lost", "unsure"])
def test_without_an_answer(fault: str) -> None:
    """Whether such a batch is stored is left to be found out for each of its operations."""
    view, histories = MemoryView(faults=[fault]), [history(f"op-{number}") for number in range(20)]

    assert projected(view, histories) == {}
    assert len(view.batches) == 1


def test_entries_are_read_together() -> None:
    """Where the first event is not among the new ones, the entries come from the view."""
    view, histories = MemoryView(), [history(f"op-{number}") for number in range(3)]
    for one in histories[:2]:
        view.plant(one.id, one.states[0])

    assert set(projected(view, histories, first=1)) == {"op-0", "op-1"}
    assert view.reads == 3


@pytest.mark.parametrize(
    ("base", "first"),
    [
        (NOTHING, 1),
        (SnapshotEntry(5, None), 0),
        (SnapshotEntry(5, history("op-2").states[0]), 1),
        (SnapshotEntry(5, history().operation), 0),
        (SnapshotEntry(5, history().states[0]), 2),
    ],
    ids=["gap", "unreadable", "another operation's", "as new", "gap after the entry"],
)
def test_what_is_not_sure(base: SnapshotEntry, first: int) -> None:
    """What needs a read of the journal, or no write, is in no batch."""
    assert plan_write("op-1", base, history().events[first:], NOW) is None


@pytest.mark.parametrize(("seconds", "is_planned"), [(0, True), (50, True), (101, False), (103, False)])
def test_what_may_have_expired(seconds: float, is_planned: bool) -> None:
    """A state is in no batch once its retention may be over."""
    write = plan_write("op-1", NOTHING, history().events, NOW + timedelta(seconds=seconds))
    assert (write is not None) is is_planned


def test_a_large_snapshot() -> None:
    """It is written alone: the broker may refuse it, and would refuse the batch with it."""
    large = history(result=Succeeded(result=msgspec.Raw(b'"%b"' % (b"x" * 70_000))))
    assert plan_write("op-1", NOTHING, large.events, NOW) is None
