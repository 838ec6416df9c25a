"""What happened within the last minute: counted by action, and forgotten as time passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream.load.recent import WINDOW, FailurePlace, RecentEvents, RecentNumbers

pytestmark = pytest.mark.unit

NAMES = ("requested", "started", "progressed", "attempt-failed", "succeeded", "failed", "canceled", "cancel-requested")


def test_each_event_counts_for_its_action() -> None:
    """Ends, begins and retries; timers, locks and what is no event count for nothing."""
    recent = RecentEvents()
    for sequence, name in enumerate(NAMES):
        recent.add(f"operations.id-{sequence}.book.print.{name}", sequence, 100.0)
    for subject in (
        "wake.book.print.x.retry",
        "operations.x",
        "operations.x.book.print.failed.more",
        "due.book.print.x",
    ):
        recent.add(subject, 99, 100.0)
    recent.add("operations.y.shelf.sort.succeeded", 9, 100.5)
    numbers = recent.numbers(101.0)
    assert numbers == {
        "book:print": RecentNumbers(requested=1, succeeded=1, failed=1, canceled=1, retried=1),
        "shelf:sort": RecentNumbers(succeeded=1),
    }
    assert (numbers["book:print"].ended, recent.failures) == (3, {"book:print": FailurePlace(5, 100.0)})


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(NAMES)), max_size=60), st.floats(0, 90))
def test_the_window(steps: list[tuple[float, str]], later: float) -> None:
    """What is older than the window is forgotten, to the second; nothing newer is."""
    recent, at, stored = RecentEvents(), 1_000.0, []
    for sequence, (step, name) in enumerate(steps):
        at += step
        recent.add(f"operations.x.book.print.{name}", sequence, at)
        stored.append((at, name))
    now = at + later
    found = recent.numbers(now).get("book:print", RecentNumbers())
    for name, number in (
        ("requested", found.requested),
        ("succeeded", found.succeeded),
        ("attempt-failed", found.retried),
    ):
        least = sum(one == name and time >= now - WINDOW + 1 for time, one in stored)
        most = sum(one == name and time >= now - WINDOW - 1 for time, one in stored)
        assert least <= number <= most
