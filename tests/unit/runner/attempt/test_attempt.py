"""The pure parts of an attempt: which progress is recorded, and which stop reason prevails."""

from __future__ import annotations

import itertools

import pytest

from opstream_runner.authoring.progress_throttle import PROGRESS_INTERVAL, PROGRESS_STEP, ProgressThrottle
from opstream_runner.handler.supervision import StopReason

pytestmark = pytest.mark.unit


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> ProgressThrottle:
    return ProgressThrottle(clock)


@pytest.mark.parametrize("percent", [0.0, 0.5, 100.0])
def test_the_first_report_passes(throttle: ProgressThrottle, percent: float) -> None:
    """The first report is always recorded."""
    assert throttle.allow(percent)


@pytest.mark.parametrize(
    ("percents", "passed"),
    [
        ([0, 0.5, 0.99, 1, 1.5, 2], [0, 1, 2]),
        ([0, 0, 0], [0]),
        ([10, 9, 5, 0], [10]),
        ([0, 50, 100, 100], [0, 50, 100]),
        ([n / 8 for n in range(801)], list(range(101))),
    ],
)
def test_at_most_one_report_a_percent(throttle: ProgressThrottle, percents: list[float], passed: list[float]) -> None:
    """Within the interval a report is recorded if it is a percent ahead of the last recorded one."""
    assert [percent for percent in percents if throttle.allow(percent)] == passed


def test_one_report_an_interval(throttle: ProgressThrottle, clock: Clock) -> None:
    """A report that is not ahead is recorded after the interval, which counts from the last recorded report."""
    passed = []
    for second in range(31):
        clock.now = 1000.0 + second
        if throttle.allow(50):
            passed.append(second)
    assert passed == [0, 10, 20, 30]


def test_a_report_backwards(throttle: ProgressThrottle, clock: Clock) -> None:
    """A lower report is recorded after the interval, and the next ones are compared with it."""
    throttle.allow(90)
    clock.now += PROGRESS_INTERVAL
    assert throttle.allow(5)
    assert not throttle.allow(5 + PROGRESS_STEP / 2)
    assert throttle.allow(5 + PROGRESS_STEP)


ORDER = [
    StopReason.CANCEL,
    StopReason.TIMEOUT,
    StopReason.DEADLINE,
    StopReason.SHUTDOWN,
    StopReason.LEASE_UNVERIFIED,
    StopReason.LEASE_LOST,
]


@pytest.mark.parametrize(("later", "earlier"), list(itertools.product(ORDER, ORDER)))
def test_which_reason_counts(later: StopReason, earlier: StopReason) -> None:
    """A later reason replaces an earlier one only if its priority is higher."""
    assert later.outweighs(earlier) == (ORDER.index(later) > ORDER.index(earlier))


@pytest.mark.parametrize("reason", list(StopReason))
def test_the_first_reason_counts(reason: StopReason) -> None:
    """Any reason replaces none."""
    assert reason.outweighs(None)
