"""What a runner says of presence records that it can't write."""

from __future__ import annotations

import logging

import pytest

from opstream_journal import NotProvisioned
from opstream_journal.queues.runner_records import MISSING, PresenceWriter, RunnerRecord
from opstream_runner import presence
from opstream_runner.presence import WARN_AFTER, PresenceKeeper
from opstream_schemas.names import Kind
from tests.support.system.wait import eventually
from tests.unit.journal.queues.test_runner_records import BOOK, RECORD

pytestmark = pytest.mark.unit

STEP = 10.0
"""Seconds between two writes, by the clock of the test."""


class Refused(PresenceWriter):
    """Nothing listens on the subjects: the stream is not there, or has no leader."""

    def __init__(self) -> None:
        self.now = 0.0

    async def write(self, kind: Kind, record: RunnerRecord, *, is_noted: bool) -> None:
        self.now += STEP
        raise NotProvisioned(MISSING)

    async def remove(self, kind: Kind) -> None:
        raise NotProvisioned(MISSING)


async def test_an_outage_is_no_missing_stream(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the process is blocked, its condition says why, and nothing is said of the stream; if it still lacks
    afterwards, there is one warning."""
    monkeypatch.setattr(presence, "WRITE_INTERVAL", 0.0)
    writer, blocked = Refused(), True
    keeper = PresenceKeeper(
        writer, lambda: [(BOOK, RECORD)], clock=lambda: writer.now, is_process_blocked=lambda: blocked
    )
    with caplog.at_level(logging.WARNING):
        keeper.start()
        await eventually(lambda: writer.now > 10 * WARN_AFTER)
        assert caplog.records == []
        blocked, since = False, writer.now
        await eventually(lambda: bool(caplog.records))
        assert writer.now - since >= WARN_AFTER
        await eventually(lambda: writer.now - since > 10 * WARN_AFTER)
        keeper.begin_end()
        await keeper.ended()
    assert [one.getMessage() for one in caplog.records] == [
        f"this runner works, but other processes don't see it: {MISSING}"
    ]
