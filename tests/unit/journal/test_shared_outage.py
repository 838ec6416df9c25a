"""The outage that several things share is one for the log."""

from __future__ import annotations

import logging

import pytest

from opstream_journal.outage_log import REMINDER_INTERVAL, SharedOutageLog

logger = logging.getLogger("test")


def test_several_fail_and_recover(caplog: pytest.LogCaptureFixture) -> None:
    """One warning at the beginning, one each 30 s with a number, and one line when none fails any more."""
    now = 0.0
    outage = SharedOutageLog(logger, "pulling fails", "pulling works", clock=lambda: now)
    with caplog.at_level(logging.INFO):
        outage.recovered("a")
        for half_second in range(int(2 * REMINDER_INTERVAL) + 1):
            now = half_second / 2
            outage.failed("a", "503")
            outage.failed("b", "503")
        outage.recovered("a")
        assert len(caplog.messages) == 2
        outage.recovered("b")
        outage.recovered("b")
    assert caplog.messages == [
        "pulling fails: a: 503",
        "pulling fails: a: 503 (119 more times since the last such line)",
        "pulling works, after 30 s",
    ]
