"""Moments of cron expressions at every transition of every zone in a decade: each wall time is due once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.errors import InvalidName
from opstream_schemas.schedules.occurrences import cron_moments, find_zone, interval_moments, wall_moment

pytestmark = pytest.mark.unit

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2030, 1, 1, tzinfo=UTC)
STEP = timedelta(days=5)
MINUTE = timedelta(minutes=1)


class Transition(NamedTuple):
    """The first moment at which a zone has another offset."""

    zone: str
    at: datetime
    before: datetime
    """What clocks would show at that moment without it."""
    after: datetime
    """What they show."""

    @property
    def size(self) -> timedelta:
        """By how much clocks are put forward; negative for back."""
        return self.after - self.before


def wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """What a zone's clocks show."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


@cache
def transitions() -> tuple[Transition, ...]:
    """Those of all zones in the decade that are gaps or overlaps."""
    found = []
    for name in sorted(available_timezones()):
        try:
            zone = find_zone(name)
        except InvalidName:
            continue  # a file that is no zone of ours
        early = BEGIN
        while early < END:
            late = early + STEP
            if late.astimezone(zone).utcoffset() != early.astimezone(zone).utcoffset():
                found.append(_between(name, zone, early, late))
            early = late
    return tuple(found)


def _between(name: str, zone: ZoneInfo, early: datetime, late: datetime) -> Transition:
    offset = early.astimezone(zone).utcoffset()
    assert offset is not None
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=1) // 2)
        early, late = (middle, late) if middle.astimezone(zone).utcoffset() == offset else (early, middle)
    return Transition(name, late, (late + offset).replace(tzinfo=None), wall(late, zone))


def test_there_are_many() -> None:
    """The decade has thousands of transitions, in both directions, and some of half an hour."""
    sizes = {one.size for one in transitions()}
    assert len(transitions()) > 2_000
    assert {timedelta(hours=1), timedelta(hours=-1), timedelta(minutes=30), timedelta(minutes=-30)} <= sizes


def test_every_gap_ends_with_what_was_in_it() -> None:
    """At each gap, wall times in it are due at its first moment after, those around it at their own times."""
    for one in transitions():
        if one.size > timedelta(0):
            zone = find_zone(one.zone)
            for inside in (one.before, one.before + one.size / 2, one.after - MINUTE):
                assert wall_moment(inside, zone) == one.at, one
            assert wall_moment(one.after, zone) == one.at, one
            assert wall_moment(one.before - MINUTE, zone) == one.at - MINUTE, one
            assert wall_moment(one.after + MINUTE, zone) == one.at + MINUTE, one


def test_every_overlap_counts_once() -> None:
    """At each overlap, wall times that come twice are due the first time, and those after it at their own."""
    for one in transitions():
        if one.size < timedelta(0):
            zone = find_zone(one.zone)
            assert wall_moment(one.after, zone) == one.at + one.size, one
            assert wall_moment(one.before - MINUTE, zone) == one.at - MINUTE, one
            assert wall_moment(one.before, zone) == one.at - one.size, one


def test_a_daily_cron_is_due_once_a_day() -> None:
    """At each transition, an expression for a time of day within it is due about once a day on the days around."""
    for one in transitions():
        zone = find_zone(one.zone)
        inside = min(one.before, one.after)
        cron = f"{inside.minute} {inside.hour} * * *"
        found = list(islice(cron_moments(cron, zone, one.at - timedelta(days=2)), 4))
        pauses = [late - early for early, late in pairwise(found)]
        assert all(abs(pause - timedelta(days=1)) <= abs(one.size) for pause in pauses), one


crons = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "*/20 1-4 * * *",
        "30 2 * * *",
        "0 0 * * *",
        "15,45 */2 * * 0",
        "59 23 L * *",
        "5 3 1 * *",
    ]
)


@given(crons, st.integers(min_value=0), st.integers(-200_000, 200_000))
def test_moments_follow_one_another(cron: str, number: int, seconds: int) -> None:
    """They increase, come after what was asked, and go on the same from each of them, wherever a transition is."""
    one = transitions()[number % len(transitions())]
    zone, after = find_zone(one.zone), one.at + timedelta(seconds=seconds)
    found = list(islice(cron_moments(cron, zone, after), 12))
    assert all(early < late for early, late in pairwise([after, *found]))
    assert list(islice(cron_moments(cron, zone, found[5]), 6)) == found[6:]
    assert list(islice(cron_moments(cron, zone, found[5] - timedelta(microseconds=1)), 7)) == found[5:]


@given(st.integers(min_value=0), st.integers(1, 59))
def test_no_wall_time_is_left_out(number: int, step: int) -> None:
    """The moments of a day around a transition are those of all its wall times, each once."""
    one = transitions()[number % len(transitions())]
    zone = find_zone(one.zone)
    first = wall(one.at, zone).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    walls = [first + minutes * MINUTE for minutes in range(3 * 1_440)]
    wanted = sorted({wall_moment(one, zone) for one in walls if one.minute % step == 0})
    found = list(islice(cron_moments(f"*/{step} * * * *", zone, wanted[0] - MINUTE), len(wanted)))
    assert found == wanted


@given(st.integers(60, 40_000_000), st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_an_interval_goes_on_the_same(seconds: int, moment: datetime) -> None:
    """From each of its moments the next ones are the same, and they are as far apart as it says."""
    after = moment.replace(tzinfo=UTC)
    found = list(islice(interval_moments(seconds, after), 3))
    assert found[0] > after
    assert found[0] - after <= timedelta(seconds=seconds)
    assert list(islice(interval_moments(seconds, found[0]), 2)) == found[1:]
    assert {late - early for early, late in pairwise(found)} == {timedelta(seconds=seconds)}
