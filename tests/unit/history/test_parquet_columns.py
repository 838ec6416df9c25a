"""Events as rows of a table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opstream.history.event_reader import StoredEvent
from opstream.history.parquet_columns import ParquetColumns
from opstream_journal.jetstream.ordered_consumer import ScannedMessage
from opstream_schemas.event_filter import decode_envelope
from tests.support.schemas.histories import History, request

pytestmark = pytest.mark.unit


def row(**said: Any) -> dict[str, Any]:
    """The row of a request that says so."""
    members = json.loads(History().append(request()).payloads[0])
    members["data"] |= said
    subject, payload = "operations.op-1.book.upload-start.requested", json.dumps(members).encode()
    columns = ParquetColumns()
    columns.add(StoredEvent(ScannedMessage(1, subject, payload, 0), decode_envelope(subject, payload)))
    (found,) = columns.table().to_pylist()
    return found


def test_what_a_request_says() -> None:
    """Each member that has a column is there."""
    assert (row()["resource_id"], row()["action_version"]) == ("42", 1)


@pytest.mark.parametrize(
    "said",
    [
        {"actionVersion": 2**31},
        {"attempt": -(2**40)},
        {"deadline": "2026-11-24T15:00:00"},
        {"error": {"code": 2**90}},
        {"percent": "half"},
    ],
)
def test_what_no_column_can_hold(said: dict[str, Any]) -> None:
    """A foreign event costs its own columns and not the file; its data is there as it is."""
    found = row(**said)
    assert said.items() <= json.loads(found["data"]).items()
    assert found["operation_id"] == "op-1"
    assert found["resource_id"] == (None if found["error_code"] is None else "42")
