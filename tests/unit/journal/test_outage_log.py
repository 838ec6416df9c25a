"""The lines about an outage: its beginning, reminders, its end."""

from __future__ import annotations

import logging

import pytest

from opstream_journal.outage_log import REMINDER_INTERVAL, OutageLog

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
