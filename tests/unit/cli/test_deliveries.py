"""Rows of `opstream deliveries`."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from opstream.cli.commands.deliveries import table_row
from opstream_schemas.webhook_delivery import DeliveryAttempt, decode_delivery_attempt

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_a_record_can_t_steer_a_terminal() -> None:
    """No control sequence of a record, which may be foreign, reaches the terminal."""
    evil = "\x1b[2J\n"
    shared = {"action": "a:b", "event": "failed", "attempt": 1, "at": NOW, "duration": 1.0, "outcome": "gave-up"}
    attempt = msgspec.convert({**shared, "operationId": evil, "endpoint": evil, "error": evil}, DeliveryAttempt)
    for room in (None, 80, 250):
        assert "".join(table_row(attempt, has_colour=False, width=room).splitlines()).isprintable()


def test_a_record_of_the_end_of_time() -> None:
    """A time of a foreign record that can't be converted to UTC is displayed as it is, and does not end the table."""
    shared = {"operationId": "op", "action": "a:b", "event": "failed", "endpoint": "x", "attempt": 1, "duration": 1.0}
    shared |= {"outcome": "retrying", "at": "0001-01-01T00:00:00+14:00", "nextAt": "9999-12-31T23:59:59-14:00"}
    shown = table_row(decode_delivery_attempt(msgspec.json.encode(shared)), has_colour=False, width=None)
    assert "1-01-01 00:00:00" in shown
    assert "next at 9999-12-31 23:59:59" in shown
