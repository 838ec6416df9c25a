"""Conditions: what probes show of them, and that the log has one line when one begins and one when it ends."""

from __future__ import annotations

import logging

import msgspec
import pytest

from opstream_journal.outage_log import REMINDER_INTERVAL
from opstream_journal.runtime.conditions import MAX_BEGINNINGS, Conditions

pytestmark = pytest.mark.unit


def test_nothing_is_wrong() -> None:
    """While all is well, a probe shows nothing besides its status."""
    conditions = Conditions()
    assert (conditions.members(), conditions.is_blocked) == ({}, False)


def test_a_condition_and_a_counter() -> None:
    """A condition is shown with its text and its next step, a counter with its sum."""
    conditions = Conditions()
    conditions.report("ClockSkew", "the clock is 9 s fast", "set it")
    conditions.count("rescheduled")
    conditions.count("rescheduled", 2)
    assert msgspec.to_builtins(conditions.members()) == {
        "conditions": [
            {"name": "ClockSkew", "message": "the clock is 9 s fast", "nextStep": "set it", "isBlocking": False}
        ],
        "counters": {"rescheduled": 3},
    }


def test_blocking() -> None:
    """A blocking condition blocks until it is resolved; another one does not."""
    conditions = Conditions()
    conditions.report("ClockSkew", "fast", "set it")
    assert not conditions.is_blocked
    conditions.report("NoQuorum", "no leader", "start servers", is_blocking=True)
    assert conditions.is_blocked
    conditions.resolve("NoQuorum")
    assert not conditions.is_blocked
    assert [one.name for one in conditions.current] == ["ClockSkew"]


def test_the_log_has_changes_only(caplog: pytest.LogCaptureFixture) -> None:
    """Reports of a condition that holds already renew its text, and log nothing; so does the end of none."""
    conditions = Conditions()
    with caplog.at_level(logging.INFO):
        conditions.resolve("ClockSkew")
        for seconds in (7, 8, 9):
            conditions.report("ClockSkew", f"{seconds} s fast", "set it")
        conditions.resolve("ClockSkew")
        conditions.resolve("ClockSkew")
    assert caplog.messages == ["ClockSkew: 7 s fast; next step: set it", "ClockSkew: this is over"]
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]


def test_a_blocking_condition_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """Every 30 s, with its newest text; one that blocks nothing is not."""
    now = 0.0
    conditions = Conditions(clock=lambda: now)
    for second in range(0, 100, 5):
        now = second
        conditions.report("ClockSkew", "fast", "set it")
        conditions.report("JournalHasNoLeader", f"for {second} s", "start servers", is_blocking=True)
    lines = [line for line in caplog.messages if line.startswith("JournalHasNoLeader")]
    assert lines == [f"JournalHasNoLeader: for {second} s; next step: start servers" for second in (0, 30, 60, 90)]
    assert len(caplog.messages) == 1 + len(lines)


def test_a_condition_that_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    """Its first beginnings are logged with their ends; one that then stays is logged within half a minute."""
    now = 100.0
    conditions = Conditions(clock=lambda: now)
    caplog.set_level(logging.INFO)
    for _ in range(50):
        conditions.report("BrokerAway", "it is gone", "start it", is_blocking=True)
        conditions.resolve("BrokerAway")
    assert len(caplog.messages) == 2 * MAX_BEGINNINGS
    caplog.clear()
    conditions.report("BrokerAway", "it is gone", "start it")
    assert caplog.messages == []
    now += REMINDER_INTERVAL
    conditions.report("BrokerAway", "it is gone", "start it")
    conditions.report("BrokerAway", "it is gone", "start it")
    conditions.resolve("BrokerAway")
    assert caplog.messages == ["BrokerAway: it is gone; next step: start it", "BrokerAway: this is over"]


def test_an_error_is_always_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A condition that a person has to look at is logged each time that it begins."""
    conditions = Conditions(clock=lambda: 100.0)
    caplog.set_level(logging.ERROR)
    for _ in range(3):
        conditions.report("JournalSetback", "events are lost", "restore", level=logging.ERROR)
        conditions.resolve("JournalSetback")
    assert len(caplog.messages) == 3
