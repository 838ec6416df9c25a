"""Updating one snapshot: what is read, written and refused."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from opstream_journal import JournalUnavailable
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Progressed, RecordedEvent, Succeeded
from tests.support.projector.replicas import MemoryJournal, MemoryView, Replica, interleave
from tests.support.schemas.histories import NOW, History, request, started

pytestmark = pytest.mark.unit

RESULT = Succeeded(result=msgspec.Raw(b'{"ok":true}'))


def history() -> History:
    return History().append(request(retention=100.0), started(), Progressed(percent=50.0), RESULT)


def replica(view: MemoryView, journal: MemoryJournal, *, seconds: float = 0) -> Replica:
    return Replica(view, journal, lambda: NOW + timedelta(seconds=seconds))


def complete(one: History) -> MemoryJournal:
    journal = MemoryJournal(one)
    journal.reach(one.id, one.events[-1].sequence)
    return journal


def foreign(one: History, *, sequence: int, position: int = 99) -> RecordedEvent:
    return msgspec.structs.replace(one.events[1], sequence=sequence, position=position)


def test_a_batch_is_one_write() -> None:
    """The batch is folded to the last state, and written with its time to live."""
    one, view = history(), MemoryView()

    replica(view, MemoryJournal(one)).run(one.events)

    assert view.written(one.id) == [one.operation]
    assert view.ttl(one.id) == pytest.approx(103)


def test_a_gap_is_repaired_from_the_journal() -> None:
    """Events that were delivered to another replica are read once."""
    one, view, journal = history(), MemoryView(), complete(history())

    replica(view, journal).run([one.events[0]], [one.events[2]])

    assert view.written(one.id) == [one.states[0], one.states[3]]
    assert journal.reads == 1


def test_a_snapshot_of_another_fold_version_is_replaced() -> None:
    """It is not trusted, whatever it says."""
    one, view, journal = history(), MemoryView(), complete(history())
    view.plant(one.id, None)

    replica(view, journal).run([one.events[0]])

    assert view.stored(one.id) == one.operation


def test_a_snapshot_of_another_operation_is_not_trusted() -> None:
    """It is replaced by the operation's own."""
    one, view = history(), MemoryView()
    view.plant(one.id, History("op-2").append(request()).operation)

    replica(view, complete(one)).run([one.events[1]])

    assert view.stored(one.id) == one.operation


def test_a_newer_snapshot_stays() -> None:
    """A late delivery writes nothing."""
    one, view = history(), MemoryView()
    view.plant(one.id, one.states[2])

    replica(view, complete(one)).run([one.events[0]], [one.events[1]])

    assert view.written(one.id) == [one.states[2]]


@pytest.mark.parametrize("position", [1, 2, 3, 99])
def test_only_the_foreign_event_is_refused(position: int) -> None:
    """It is named; the folded state stays; later events are folded."""
    one, view = History().append(request(), started()), MemoryView()
    stranger = foreign(one, sequence=3, position=position)
    one.events.append(stranger)
    target = replica(view, complete(one))

    target.run(one.events)

    assert view.stored(one.id) == one.states[1]
    assert (target.refused, target.doubtful) == ([3], [])


def test_a_second_request_does_not_set_an_operation_back() -> None:
    """This holds even if the journal, read by position, shows nothing else."""
    one, view = History().append(request(), started()), MemoryView()
    again = msgspec.structs.replace(one.events[0], sequence=9)
    journal = MemoryJournal(History())
    journal._events[one.id] = [again]
    journal.reach(one.id, 9)
    view.plant(one.id, one.operation)

    replica(view, journal).run([again])

    assert view.written(one.id) == [one.operation]


def test_the_readable_part_of_a_damaged_journal_is_stored() -> None:
    """Only events after the gap are doubtful, and may become foldable."""
    one, view, journal = history(), MemoryView(), complete(history())
    journal.error = InvalidEvent("damaged")
    target = replica(view, journal)

    target.run([one.events[0], one.events[1], one.events[3]])

    assert view.stored(one.id) == one.states[1]
    assert (target.refused, target.doubtful) == ([], [4])
    target.run([one.events[2]])
    target.run([one.events[3]])
    assert view.stored(one.id) == one.operation


def test_without_any_readable_state_nothing_is_written() -> None:
    """An unreadable snapshot over an unreadable journal stays as it is."""
    one, view, journal = history(), MemoryView(), complete(history())
    journal.error = InvalidEvent("damaged")
    view.plant(one.id, None)
    target = replica(view, journal)

    target.run([one.events[0]])

    assert view.written(one.id) == [None]
    assert target.doubtful == [1]


def test_an_operation_whose_beginning_expired_is_doubtful() -> None:
    """Its last event alone can't be folded."""
    one, view = history(), MemoryView()
    target = replica(view, MemoryJournal())

    target.run([one.events[3]])

    assert view.written(one.id) == []
    assert target.doubtful == [4]


def test_a_former_leader_is_not_trusted() -> None:
    """A read that lacks delivered events is retried later."""
    one, view = history(), MemoryView()
    journal = complete(one)
    journal._events[one.id] = one.events[:2]
    target = replica(view, journal)

    with pytest.raises(JournalUnavailable, match="only up to sequence 2"):
        interleave([_project(target, one.events[2:])], lambda _: 0)

    assert view.written(one.id) == []


async def _project(target: Replica, events: list[RecordedEvent]) -> None:
    await target.writer.project(events[0].operation_id, events)


def test_a_snapshot_that_keeps_changing() -> None:
    """The writer gives up for now, and does not loop forever."""
    one, view = history(), MemoryView()

    async def busy(operation: object, revision: int, *, ttl: float | None = None) -> None:
        view.plant(one.id, None)

    view.put = busy  # type: ignore[method-assign,assignment]

    with pytest.raises(JournalUnavailable, match="keeps changing"):
        interleave([_project(replica(view, complete(one)), one.events)], lambda _: 0)


def test_past_retention_nothing_is_written() -> None:
    """The operation has expired for clients."""
    one, view = history(), MemoryView()

    replica(view, complete(one), seconds=500).run(one.events)

    assert view.written(one.id) == []


def test_past_retention_an_open_snapshot_is_replaced() -> None:
    """It would stay forever."""
    one, view = history(), MemoryView()
    view.plant(one.id, one.states[1])

    replica(view, complete(one), seconds=500).run(one.events[2:])

    assert view.stored(one.id) == one.operation
    assert view.ttl(one.id) == 1


def test_past_retention_a_late_request_does_not_revive_an_operation() -> None:
    """Its snapshot has expired; its first event, delivered again, must not look like a new operation."""
    one, view = history(), MemoryView()

    replica(view, complete(one), seconds=500).run([one.events[0]], [one.events[1]])

    assert view.written(one.id) == []
