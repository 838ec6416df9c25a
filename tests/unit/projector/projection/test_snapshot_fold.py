"""How events become a snapshot, how long it lives, and what the cache keeps."""

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


def test_events_in_order_are_folded() -> None:
    """They give the last state."""
    one = history()

    folding = fold_onto(None, one.events)

    assert folding.operation == one.operation
    assert folding.refused == ()


def test_redelivered_events_are_skipped() -> None:
    """They change nothing and are not refused."""
    one = history()

    folding = fold_onto(one.states[2], one.events)

    assert folding.operation == one.operation
    assert folding.refused == ()


def test_an_event_behind_a_gap_is_refused() -> None:
    """Event n continues only n-1."""
    one = history()

    folding = fold_onto(one.states[0], [one.events[2]])

    assert folding.operation == one.states[0]
    assert [refusal.event for refusal in folding.refused] == [one.events[2]]


def test_only_a_first_event_begins_an_operation() -> None:
    """Without a snapshot only the first event can be folded."""
    folding = fold_onto(None, history().events[1:])

    assert folding.operation is None
    assert len(folding.refused) == 3


def test_a_foreign_event_leaves_the_rest_foldable() -> None:
    """An event whose hash proves that nothing is missing is folded although a foreign event precedes it."""
    one = history()
    foreign = msgspec.structs.replace(one.events[1], previous_hash="f" * 64)

    folding = fold_onto(None, [one.events[0], foreign, *one.events[1:]])

    assert folding.operation == one.operation
    assert [refusal.event for refusal in folding.refused] == [foreign]


def test_an_unknown_type_is_counted() -> None:
    """A reader skips it."""
    one = History().append(request(), FromTheFuture())

    folding = fold_onto(None, one.events)

    assert folding.operation is not None
    assert (folding.operation.position, folding.operation.skipped) == (2, 1)


def test_only_a_later_snapshot_supersedes() -> None:
    """Equal or older ones do not, nor one at an earlier position."""
    one = history()
    reset = msgspec.structs.replace(one.states[0], stream_sequence=99)

    assert supersedes(one.states[1], None)
    assert supersedes(one.states[1], one.states[0])
    assert not supersedes(one.states[1], one.states[1])
    assert not supersedes(one.states[1], one.states[2])
    assert not supersedes(reset, one.states[2])


def test_the_time_to_live_of_an_open_snapshot() -> None:
    """It lives one retention beyond its deadline; after the deadline, one retention from now, however late that is."""
    one = history(retention=100.0).states[2]

    assert time_to_live(one, one.deadline - timedelta(seconds=40)) == pytest.approx(140)
    assert time_to_live(one, one.deadline) == pytest.approx(100)
    assert time_to_live(one, one.deadline + timedelta(days=999)) == pytest.approx(100)


def test_the_time_to_live_of_a_terminal_snapshot() -> None:
    """It lives for its retention, counted from the operation's end, in seconds."""
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
def test_each_outcome_has_its_retention(outcome: str, failed: float, canceled: float, seconds: float) -> None:
    """An outcome without a retention of its own has that of a success."""
    data = request(retention=100.0, retention_failed=failed, retention_canceled=canceled)
    one = History().append(data, started(), OUTCOMES[outcome]).operation
    assert one.finished_at is not None

    assert time_to_live(one, one.finished_at) == pytest.approx(seconds)


def test_an_open_snapshot_gets_the_longest_retention() -> None:
    """Whatever its outcome will be, it does not expire before the terminal snapshot would."""
    one = History().append(request(retention=100.0, retention_failed=900.0, retention_canceled=50.0)).operation

    assert time_to_live(one, one.deadline) == pytest.approx(900)


def test_an_open_one_may_have_expired_by_the_shortest_retention() -> None:
    """Its outcome is not known yet."""
    one = History().append(request(retention=100.0, retention_failed=900.0, retention_canceled=50.0)).operation

    assert not may_have_expired(one, NOW + timedelta(seconds=49))
    assert may_have_expired(one, NOW + timedelta(seconds=50))


@pytest.mark.parametrize("retention", [1e10, 1e300])
def test_a_time_to_live_that_the_broker_can_t_count(retention: float) -> None:
    """No retention is too long: beyond the broker's limit the snapshot never expires."""
    one = history(retention=retention).operation

    assert time_to_live(one, NOW) == math.inf


def test_an_operation_may_have_expired_once_its_retention_is_over() -> None:
    """The retention counts from the request, the earliest time at which the operation can have ended."""
    one = history(retention=100.0).states[0]

    assert not may_have_expired(one, NOW + timedelta(seconds=99))
    assert may_have_expired(one, NOW + timedelta(seconds=100))


def test_the_least_cachely_used_entries_are_evicted() -> None:
    """They are evicted by count."""
    cache = SnapshotCache(max_entries=2, max_bytes=2**30)
    states = [History(f"op-{number}").append(request()).operation for number in range(3)]

    for number, state in enumerate(states[:2]):
        cache.put(state, number)
    cache.get("op-0")
    cache.put(states[2], 2)

    assert len(cache) == 2
    assert cache.get("op-1") is None
    entry = cache.get("op-0")
    assert entry is not None
    assert (entry.revision, entry.operation) == (0, states[0])


def test_large_results_leave_room_for_few_entries() -> None:
    """Entries are evicted by their bytes, also after replacements."""
    cache = SnapshotCache(max_entries=1_000, max_bytes=1_000_000)
    large = Succeeded(result=msgspec.Raw(b'"' + b"x" * 250_000 + b'"'))

    for number in range(10):
        state = History(f"op-{number}").append(request(), started(), large).operation
        cache.put(state, 1)
        cache.put(state, 2)

    assert len(cache) == 3
    for number in range(10):
        cache.discard(f"op-{number}")
    for number in range(400):
        cache.put(History(f"small-{number}").append(request()).operation, 1)
    assert len(cache) == 400


def test_snapshots_say_which_fold_made_them() -> None:
    """So the next version knows which snapshots to fold again."""
    assert history().operation.fold_version == FOLD_VERSION
