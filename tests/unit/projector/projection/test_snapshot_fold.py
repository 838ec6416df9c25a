"""How events become a snapshot, how long it stays, and what is remembered of it."""

from __future__ import annotations

import math
from datetime import timedelta

import msgspec
import pytest

from opstream_projector.projection.snapshot_cache import SnapshotCache
from opstream_projector.projection.snapshot_fold import fold_onto, may_have_expired, supersedes, time_to_live
from opstream_schemas.events import Canceled, EventData, Failed, Progressed, Succeeded
from opstream_schemas.operation.state import FOLD_VERSION
from tests.support.schemas.histories import FAILURE, NOW, FromTheFuture, History, request, started

pytestmark = pytest.mark.unit

RESULT = Succeeded(result=msgspec.Raw(b'{"ok":true}'))


def history(*, retention: float = 100.0) -> History:
    return History().append(request(retention=retention), started(), Progressed(percent=50.0), RESULT)


def test_what_continues_the_operation_is_folded() -> None:
    """Events in order give the last state."""
    one = history()

    folding = fold_onto(None, one.events)

    assert folding.operation == one.operation
    assert folding.refused == ()


def test_what_it_holds_already_is_passed_over() -> None:
    """Events delivered again change nothing and are not refused."""
    one = history()

    folding = fold_onto(one.states[2], one.events)

    assert folding.operation == one.operation
    assert folding.refused == ()


def test_an_event_behind_a_gap_is_refused() -> None:
    """Event n goes only onto n-1."""
    one = history()

    folding = fold_onto(one.states[0], [one.events[2]])

    assert folding.operation == one.states[0]
    assert [refusal.event for refusal in folding.refused] == [one.events[2]]


def test_what_does_not_begin_an_operation_is_refused() -> None:
    """Without a snapshot only the first event can be folded."""
    folding = fold_onto(None, history().events[1:])

    assert folding.operation is None
    assert len(folding.refused) == 3


def test_a_foreign_event_leaves_the_rest_foldable() -> None:
    """What proves by its hash that nothing is missing is folded although something foreign lies before it."""
    one = history()
    foreign = msgspec.structs.replace(one.events[1], previous_hash="f" * 64)

    folding = fold_onto(None, [one.events[0], foreign, *one.events[1:]])

    assert folding.operation == one.operation
    assert [refusal.event for refusal in folding.refused] == [foreign]


def test_an_unknown_type_is_counted() -> None:
    """A reader passes over it."""
    one = History().append(request(), FromTheFuture())

    folding = fold_onto(None, one.events)

    assert folding.operation is not None
    assert (folding.operation.position, folding.operation.skipped) == (2, 1)


def test_only_a_later_snapshot_supersedes() -> None:
    """Equal or older ones do not, and nothing that is back at an earlier position."""
    one = history()
    reset = msgspec.structs.replace(one.states[0], stream_sequence=99)

    assert supersedes(one.states[1], None)
    assert supersedes(one.states[1], one.states[0])
    assert not supersedes(one.states[1], one.states[1])
    assert not supersedes(one.states[1], one.states[2])
    assert not supersedes(reset, one.states[2])


def test_an_open_one_stays_for_as_long_as_it_may_be_of_use() -> None:
    """Until the retention of an end at its deadline is over; past that deadline, for its retention, however late."""
    one = history(retention=100.0).states[2]

    assert time_to_live(one, one.deadline - timedelta(seconds=40)) == pytest.approx(140)
    assert time_to_live(one, one.deadline) == pytest.approx(100)
    assert time_to_live(one, one.deadline + timedelta(days=999)) == pytest.approx(100)


def test_a_terminal_one_stays_for_its_retention() -> None:
    """Counted from the end of the operation, in seconds."""
    one = history(retention=100.0).operation
    assert one.finished_at is not None

    assert time_to_live(one, one.finished_at) == pytest.approx(100)
    assert time_to_live(one, one.finished_at + timedelta(seconds=40)) == pytest.approx(60)
    assert time_to_live(one, one.finished_at + timedelta(seconds=140)) == pytest.approx(-40)


OUTCOMES: dict[str, EventData] = {"succeeded": RESULT, "failed": Failed(error=FAILURE), "canceled": Canceled()}


@pytest.mark.parametrize(
    ("outcome", "failed", "canceled", "seconds"),
    [
        ("succeeded", 900.0, 50.0, 100.0),
        ("failed", 900.0, 50.0, 900.0),
        ("failed", 0.0, 50.0, 100.0),
        ("canceled", 900.0, 50.0, 50.0),
        ("canceled", 900.0, 0.0, 100.0),
    ],
)
def test_a_terminal_one_stays_for_as_long_as_its_outcome_says(
    outcome: str, failed: float, canceled: float, seconds: float
) -> None:
    """What has no retention of its own has that of a success."""
    data = request(retention=100.0, retention_failed=failed, retention_canceled=canceled)
    one = History().append(data, started(), OUTCOMES[outcome]).operation
    assert one.finished_at is not None

    assert time_to_live(one, one.finished_at) == pytest.approx(seconds)


def test_an_open_one_stays_for_the_longest_that_its_end_may_ask_for() -> None:
    """Whatever its outcome will be, nothing older of it outlives its own end in the view."""
    one = History().append(request(retention=100.0, retention_failed=900.0, retention_canceled=50.0)).operation

    assert time_to_live(one, one.deadline) == pytest.approx(900)


def test_an_open_one_may_have_expired_by_the_shortest_retention() -> None:
    """Nobody knows yet how it has ended."""
    one = History().append(request(retention=100.0, retention_failed=900.0, retention_canceled=50.0)).operation

    assert not may_have_expired(one, NOW + timedelta(seconds=49))
    assert may_have_expired(one, NOW + timedelta(seconds=50))


@pytest.mark.parametrize("retention", [1e10, 1e300])
def test_what_the_broker_can_not_count_stays_for_ever(retention: float) -> None:
    """No retention makes the projector or the broker stumble."""
    one = history(retention=retention).operation

    assert time_to_live(one, NOW) == math.inf


def test_an_operation_may_have_expired_once_its_retention_is_over() -> None:
    """Counted from its request, the earliest moment at which it can have ended."""
    one = history(retention=100.0).states[0]

    assert not may_have_expired(one, NOW + timedelta(seconds=99))
    assert may_have_expired(one, NOW + timedelta(seconds=100))


def test_the_least_recently_used_entries_are_forgotten() -> None:
    """By count."""
    recent = SnapshotCache(max_entries=2, max_bytes=2**30)
    states = [History(f"op-{number}").append(request()).operation for number in range(3)]

    for number, state in enumerate(states[:2]):
        recent.put(state, number)
    recent.get("op-0")
    recent.put(states[2], 2)

    assert len(recent) == 2
    assert recent.get("op-1") is None
    entry = recent.get("op-0")
    assert entry is not None
    assert (entry.revision, entry.operation) == (0, states[0])


def test_large_results_leave_room_for_few() -> None:
    """By bytes, also when entries are replaced."""
    recent = SnapshotCache(max_entries=1_000, max_bytes=1_000_000)
    large = Succeeded(result=msgspec.Raw(b'"' + b"x" * 250_000 + b'"'))

    for number in range(10):
        state = History(f"op-{number}").append(request(), started(), large).operation
        recent.put(state, 1)
        recent.put(state, 2)

    assert len(recent) == 3
    for number in range(10):
        recent.discard(f"op-{number}")
    for number in range(400):
        recent.put(History(f"small-{number}").append(request()).operation, 1)
    assert len(recent) == 400


def test_snapshots_say_which_fold_made_them() -> None:
    """Otherwise the next version could not tell which to fold again."""
    assert history().operation.fold_version == FOLD_VERSION
