"""However events are delivered, to any replica, in any order and repeatedly, the view becomes the fold."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_projector.projection.snapshot_fold import time_to_live
from opstream_schemas.events import Failed, RecordedEvent
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Status
from tests.support.projector.replicas import MemoryJournal, MemoryView, Replica, interleave
from tests.support.schemas.histories import FAILURE, History, histories

pytestmark = pytest.mark.unit

Batches = list[list[RecordedEvent]]


@st.composite
def lives(draw: st.DrawFn) -> History:
    """A history that mostly ends."""
    history = draw(histories(unknown=True))
    if not history.operation.is_terminal and draw(st.integers(0, 3)):
        history.append(Failed(error=FAILURE))
    return history


@st.composite
def deliveries(draw: st.DrawFn, events: list[RecordedEvent]) -> tuple[Batches, Batches]:
    """Batches for two replicas: each event at least once, some again, mostly in order."""
    order = list(events)
    order += draw(st.lists(st.sampled_from(events), max_size=4))
    if draw(st.booleans()):
        order = draw(st.permutations(order))
    replicas: tuple[Batches, Batches] = ([[]], [[]])
    for event in order:
        batches = replicas[draw(st.integers(0, 1))]
        batches[-1].append(event)
        if draw(st.booleans()):
            batches.append([])
    return replicas


faults = st.lists(st.sampled_from(["ok", "ok", "lost", "unsure"]), max_size=6)


def _fold(history: History) -> bytes:
    return msgspec.json.encode(fold_for_reader(None, history.events))


@given(st.data(), st.lists(lives(), min_size=1, max_size=2, unique_by=lambda h: h.id), faults)
def test_two_replicas_converge_to_the_fold(data: Any, found: list[History], mishaps: list[str]) -> None:
    """Any order, duplication, split, interleaving, lost response and stale read leads to the fold, and never back.

    Replicas write snapshots one by one, or as batches.
    """
    view = MemoryView(faults=mishaps)
    view.is_behind = lambda: data.draw(st.booleans())
    journal = MemoryJournal(*found)
    now = min(history.start for history in found)
    batches = data.draw(deliveries([event for history in found for event in history.events]))
    replicas = [
        Replica(view, journal, lambda: now, recent=data.draw(st.integers(1, 3)), least=data.draw(st.integers(1, 3)))
        for _ in batches
    ]

    interleave(
        [replica.take(*taken) for replica, taken in zip(replicas, batches, strict=True)],
        lambda count: data.draw(st.integers(0, count - 1)),
    )

    for history in found:
        assert msgspec.json.encode(view.stored(history.id)) == _fold(history)
        positions = [one.position for one in view.written(history.id) if one is not None]
        assert positions == sorted(set(positions))
        assert (view.ttl(history.id) is None) == math.isinf(time_to_live(history.operation, now))
    assert [replica.refused + replica.doubtful for replica in replicas] == [[], []]


@given(st.data(), lives(), st.integers(-1, 10))
def test_after_retention_no_open_snapshot_stays(data: Any, history: History, planted: int) -> None:
    """Long after its end an operation is not in the view; an open snapshot of it gets the shortest TTL."""
    view = MemoryView()
    if 0 <= planted < len(history.states) - 1:
        view.plant(history.id, history.states[planted])
    journal = MemoryJournal(history)
    journal.reach(history.id, history.events[-1].sequence)
    now = history.events[-1].time + timedelta(seconds=history.operation.effective_retention + 1)
    batches = data.draw(deliveries(history.events))
    replicas = [Replica(view, journal, lambda: now, least=data.draw(st.integers(1, 2))) for _ in batches]

    interleave(
        [replica.take(*taken) for replica, taken in zip(replicas, batches, strict=True)],
        lambda count: data.draw(st.integers(0, count - 1)),
    )

    stored = view.stored(history.id)
    if not history.operation.is_terminal:
        assert msgspec.json.encode(stored) == _fold(history)
        assert (view.ttl(history.id) is None) == math.isinf(time_to_live(history.operation, now))
    elif stored is not None:
        assert stored.is_terminal
        assert view.ttl(history.id) == 1


@given(lives(), st.timedeltas(timedelta(days=-400), timedelta(days=4000)))
def test_a_snapshot_outlives_its_successor(history: History, late: timedelta) -> None:
    """An open snapshot outlives any outcome's retention from now or its deadline; a terminal one has its own."""
    end = history.operation
    now = history.start + late
    retentions = {
        Status.SUCCEEDED: end.retention,
        Status.FAILED: end.retention_failed or end.retention,
        Status.CANCELED: end.retention_canceled or end.retention,
    }

    if end.finished_at is not None:
        over = end.finished_at.timestamp() + retentions[end.status]
        assert math.isinf(time_to_live(end, now)) or time_to_live(end, now) == pytest.approx(over - now.timestamp())
    for state in history.states:
        assert state.minimum_retention <= end.effective_retention <= max(retentions.values())
        if not state.is_terminal:
            assert time_to_live(state, now) >= max(retentions.values()) - 1e-3


@given(st.data(), lives())
def test_a_single_replica_in_order_reads_nothing(data: Any, history: History) -> None:
    """The usual case costs one write per batch and no read."""
    view, journal = MemoryView(), MemoryJournal(history)
    replica = Replica(view, journal, lambda: history.start, least=data.draw(st.integers(1, 2)))
    batches: Batches = [[]]
    for event in history.events:
        batches[-1].append(event)
        if data.draw(st.booleans()):
            batches.append([])

    replica.run(*batches)

    assert msgspec.json.encode(view.stored(history.id)) == _fold(history)
    assert len(view.written(history.id)) == len([batch for batch in batches if batch])
    assert (view.reads, journal.reads) == (0, 0)
