"""The moments of a cron expression and of an interval, and which of them are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from opstream_schemas.errors import InvalidName
from opstream_schemas.schedules.occurrences import check_cron, check_zone, cron_moments, find_zone, interval_moments
from opstream_schemas.schedules.schedule import (
    CATCH_UP,
    Due,
    Schedule,
    check_schedule,
    check_schedule_name,
    find_due,
    is_derived_id,
    next_moments,
    occurrence_id,
    trigger_id,
)

pytestmark = pytest.mark.unit

BERLIN = "Europe/Berlin"
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def utc(text: str) -> datetime:
    """A time of day in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def moments(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next moments, as text."""
    found = islice(cron_moments(cron, find_zone(zone), utc(after)), count)
    return [f"{moment:%Y-%m-%dT%H:%M}" for moment in found]


def test_a_day_is_that_of_the_zone() -> None:
    """Nine in the morning in Berlin is another time in UTC in summer."""
    assert moments("0 9 * * *", BERLIN, "2026-03-28T00:00", 3) == [
        "2026-03-28T08:00",
        "2026-03-29T07:00",
        "2026-03-30T07:00",
    ]


def test_a_gap_is_due_at_its_end() -> None:
    """What clocks skip on 29 March at two is due at three, the first moment after it; and once, however often it was
    in the gap."""
    assert moments("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["2026-03-29T01:00", "2026-03-30T00:30"]
    assert moments("*/20 1-3 * * *", BERLIN, "2026-03-29T00:00", 6) == [
        "2026-03-29T00:20",
        "2026-03-29T00:40",
        "2026-03-29T01:00",
        "2026-03-29T01:20",
        "2026-03-29T01:40",
        "2026-03-29T23:00",
    ]


def test_an_overlap_is_due_once() -> None:
    """What clocks show twice on 25 October is due the first time, also for one who asks in between."""
    assert moments("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["2026-10-25T00:30", "2026-10-26T01:30"]
    assert moments("30 2 * * *", BERLIN, "2026-10-25T00:45", 1) == ["2026-10-26T01:30"]
    assert moments("30 2 * * *", BERLIN, "2026-10-25T01:00", 1) == ["2026-10-26T01:30"]


def test_a_day_that_a_zone_has_skipped() -> None:
    """Samoa had no 30 December 2011: what was due on it is due as the 31st begins."""
    assert moments("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00", 1) == ["2011-12-30T10:00"]


def test_an_interval() -> None:
    """Its moments are multiples of it since 1970, whenever one asks."""
    assert list(islice(interval_moments(900, NOW), 2)) == [NOW + timedelta(minutes=15), NOW + timedelta(minutes=30)]
    assert next(interval_moments(900, NOW - timedelta(microseconds=1))) == NOW
    assert next(interval_moments(86_400, NOW)) == utc("2026-11-25T00:00")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 25 * * *",
        "@daily",
        "a b c d e",
        "0 0 30 2 *",
        "0 0 30 2 1#5",
        "0 0 */29 2 1",
        "* * * * *" + " " * 200,
    ],
)
def test_what_is_no_cron_expression(text: str) -> None:
    """Too few or many fields, numbers out of range, and days that never come, or so rarely that the search is long."""
    with pytest.raises(InvalidName):
        check_cron(text)


@pytest.mark.parametrize(
    "name",
    [
        *("", "Mars/Phobos", "../etc/passwd", "/etc/localtime", "Europe", "right/UTC", "UTC\n", "A" * 99),
        *("localtime", "posixrules", "Factory"),
    ],
)
def test_what_is_no_zone(name: str) -> None:
    """No file of the system that is none, no folder, and no clock with leap seconds."""
    with pytest.raises(InvalidName):
        check_zone(name)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"action": "book"}, "book"),
        ({"action": "status:read"}, "status"),
        ({"cron": ""}, "either"),
        ({"every": 60}, "either"),
        ({"cron": "", "every": 59}, "every"),
        ({"cron": "", "every": 32_000_000}, "every"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"time_zone": "Mars/Phobos"}, "zone"),
        ({"resource_id": "a/b"}, "a/b"),
    ],
)
def test_what_is_no_schedule(changes: dict[str, object], part: str) -> None:
    """Each part is checked, and the message names it."""
    given = {"action": "book:reindex", "cron": "0 3 * * *"} | changes
    with pytest.raises(InvalidName, match=part):
        check_schedule(Schedule(**given))


HOURLY = Schedule(action="book:reindex", cron="0 * * * *")


def test_what_is_due() -> None:
    """What has come since, up to now; not what is to come."""
    assert find_due(HOURLY, NOW - timedelta(minutes=30), NOW) == Due((NOW,), False)
    assert find_due(HOURLY, NOW, NOW + timedelta(minutes=59)) == Due((), False)
    often = Schedule(action="book:reindex", every=1_200)
    assert find_due(often, NOW - timedelta(seconds=1), NOW + timedelta(minutes=40)).moments == (
        NOW,
        NOW + timedelta(minutes=20),
        NOW + timedelta(minutes=40),
    )


def test_what_was_due_for_too_long() -> None:
    """Of a night without a service only the last hour is made up for, and that others were missed is known."""
    assert find_due(HOURLY, NOW - timedelta(days=30), NOW) == Due((NOW,), True)
    daily = Schedule(action="book:reindex", cron="0 3 * * *")
    assert find_due(daily, NOW - timedelta(days=1), NOW) == Due((), True)
    assert find_due(daily, NOW - timedelta(hours=2), NOW) == Due((), False)
    at_the_edge = Schedule(action="book:reindex", cron="0 7 * * *")
    assert timedelta(hours=1) == CATCH_UP
    assert find_due(at_the_edge, NOW - timedelta(days=1, minutes=1), NOW + timedelta(microseconds=1)).has_missed


def test_the_ids() -> None:
    """They follow from the name and the moment in UTC, and have at most 64 characters."""
    berlin = datetime(2026, 11, 24, 9, 0, tzinfo=find_zone(BERLIN))
    assert occurrence_id("nightly", berlin) == occurrence_id("nightly", NOW) == "sched-nightly-20261124T080000Z"
    assert trigger_id("nightly", NOW) == "trig-nightly-20261124T080000Z"
    assert len(occurrence_id(check_schedule_name("n" * 40), NOW)) <= 64
    for name in ("", "n" * 41, "Nightly", "a/b", "a:b", "a.b"):
        with pytest.raises(InvalidName):
            check_schedule_name(name)


def test_a_preview_may_be_short() -> None:
    """An expression whose days are rare has its moments far away, and they are found."""
    leap = Schedule(action="book:reindex", cron="0 0 29 2 *")
    assert [moment.year for moment in next_moments(leap, NOW, 3)] == [2028, 2032]


def test_a_search_ends() -> None:
    """It looks eight years ahead, also for what was stored by others and has no moment in them."""
    rare = Schedule(action="book:reindex", cron="0 0 30 2 1#5")
    assert next_moments(rare, NOW, 100) == []
    assert [moment.year for moment in next_moments(Schedule(action="b:r", cron="0 0 1 1 *"), NOW, 100)] == [
        *range(2027, 2035)
    ]


def test_the_ids_of_schedules_are_known() -> None:
    """Those that follow from a name and a moment; not their retries, and not what only begins so."""
    assert is_derived_id(occurrence_id("nightly", NOW))
    assert is_derived_id(trigger_id("n" * 40, NOW))
    for other in ("sched-nightly", "sched-nightly-20261124T080000Z-retry-1", "trig--", "my-sched-a-20261124T080000Z"):
        assert not is_derived_id(other)
