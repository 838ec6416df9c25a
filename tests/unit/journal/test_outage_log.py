"""The lines about an outage: its beginning, reminders, its end."""

from __future__ import annotations

import logging

import pytest

from opstream_journal.outage_log import (
    COUNT_INTERVAL,
    MAX_BEGINNINGS,
    MAX_NAMED,
    REMINDER_INTERVAL,
    BoundedLog,
    OutageLog,
)
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit

logger = logging.getLogger("test.outage")


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture, least: int = logging.INFO) -> list[tuple[str, str]]:
    """Level and text of what was logged since the last call."""
    found = [(one.levelname, one.getMessage()) for one in caplog.records if one.levelno >= least]
    caplog.clear()
    return found


def test_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """A warning when it begins, one with a count every 30 s, an INFO line when it is over; the rest is DEBUG."""
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    outage = OutageLog(logger, "reading fails", "reading works", clock=clock)
    outage.recovered()
    assert lines(caplog) == []
    assert not outage.is_failing
    outage.failed("no answer")
    assert outage.is_failing
    assert lines(caplog) == [("WARNING", "reading fails: no answer")]
    for _ in range(50):
        outage.failed("no answer")
    assert lines(caplog, logging.DEBUG) == [("DEBUG", "reading fails: no answer")] * 50
    clock.now += REMINDER_INTERVAL
    outage.failed("refused")
    assert lines(caplog) == [("WARNING", "reading fails: refused (50 more times since the last such line)")]
    clock.now += 5
    outage.recovered()
    outage.recovered()
    assert lines(caplog) == [("INFO", "reading works, after 35 s")]
    outage.failed("again")
    assert lines(caplog) == [("WARNING", "reading fails: again")]


def test_an_outage_that_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    """Its first few beginnings and ends are logged; later ones only every 30 s, with a count."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    outage = OutageLog(logger, "reading fails", "reading works", clock=clock)
    for _ in range(100):
        outage.failed("no answer")
        outage.recovered()
        clock.now += 0.1
    assert [level for level, _ in lines(caplog)] == ["WARNING", "INFO"] * MAX_BEGINNINGS
    clock.now += REMINDER_INTERVAL
    outage.failed("no answer")
    more = 100 - MAX_BEGINNINGS
    assert lines(caplog) == [
        ("WARNING", f"reading fails: no answer ({more} more times since the last such line)"),
    ]
    outage.recovered()
    assert [level for level, _ in lines(caplog)] == ["INFO"]


def test_an_outage_that_comes_and_goes_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    """One whose beginning was not logged is, once it lasts; so is its end."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    outage = OutageLog(logger, "reading fails", "reading works", clock=clock)
    for _ in range(MAX_BEGINNINGS):
        outage.failed("no answer")
        outage.recovered()
    lines(caplog)
    outage.failed("no answer")
    clock.now += REMINDER_INTERVAL - 1
    outage.failed("no answer")
    assert lines(caplog) == []
    clock.now += 1
    outage.failed("no answer")
    assert lines(caplog) == [("WARNING", "reading fails: no answer (2 more times since the last such line)")]
    outage.recovered()
    assert lines(caplog) == [("INFO", "reading works, after 30 s")]


def test_messages_of_others(caplog: pytest.LogCaptureFixture) -> None:
    """However many there are: a few lines a minute, and then how many more."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    bounded = BoundedLog(logger, "foreign messages", clock=clock)
    for number in range(10_000):
        bounded.log(logging.ERROR, "message %s is no event", number)
    assert lines(caplog) == [("ERROR", f"message {number} is no event") for number in range(MAX_NAMED)]
    clock.now += COUNT_INTERVAL
    bounded.log(logging.ERROR, "message %s is no event", 10_000)
    assert lines(caplog) == [
        ("ERROR", f"foreign messages: {10_000 - MAX_NAMED:,} more in the last minute"),
        ("ERROR", "message 10000 is no event"),
    ]


async def test_the_count_comes_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A flood that ends is counted, too."""
    caplog.set_level(logging.INFO)
    bounded = BoundedLog(logger, "foreign messages", interval=0.05)
    for number in range(MAX_NAMED + 3):
        bounded.log(logging.WARNING, "message %s is no event", number)
    await eventually(lambda: "foreign messages: 3 more" in caplog.text)
