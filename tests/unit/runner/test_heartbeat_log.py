"""What failing heartbeats write to the log."""

from __future__ import annotations

import logging

import pytest

from opstream_runner.heartbeat_log import HeartbeatLog

pytestmark = pytest.mark.unit

GIVEN_UP = "a lease is given up and its handler stopped, so another runner may take the operation over"


def test_many_operations_are_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    """Five operations whose heartbeats fail, two of which lose their lease, are two warnings and two ends."""
    now = 0.0
    log = HeartbeatLog(clock=lambda: now)
    ids = [f"op-{number}" for number in range(5)]
    with caplog.at_level(logging.INFO):
        for one in ids:
            log.failed(one, TimeoutError())
        now = 10.0
        for one in ids[:2]:
            log.gave_up(one, 10.0)
            log.forget(one)
        now = 12.0
        for one in ids[2:]:
            log.works(one)
    assert caplog.messages == [
        "a heartbeat fails: operation op-0: TimeoutError",
        f"{GIVEN_UP}: operation op-0: no heartbeat for 10 s",
        "heartbeats work again, after 12 s",
        "leases are kept again, after 2 s",
    ]


def test_an_outage_whose_attempts_are_over(caplog: pytest.LogCaptureFixture) -> None:
    """When all attempts whose heartbeats failed are over, none says that heartbeats work; a later outage is news."""
    times = [0.0]
    log = HeartbeatLog(clock=lambda: times[-1])
    with caplog.at_level(logging.INFO):
        log.failed("op-1", "503")
        log.forget("op-1")
        log.works("op-2")
        times.append(60.0)
        log.failed("op-3", "503")
    assert caplog.messages == ["a heartbeat fails: operation op-1: 503", "a heartbeat fails: operation op-3: 503"]
