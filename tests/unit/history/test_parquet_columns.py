"""Events as rows of a table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opstream.history.event_reader import StoredEvent
from opstream.history.parquet_columns import ParquetColumns
from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_schemas.event_filter import decode_envelope
from tests.support.schemas.histories import History, request

pytestmark = pytest.mark.unit


def row(**data: Any) -> dict[str, Any]:
    """The row of a request with this data."""
    members = json.loads(History().append(request()).payloads[0])
    members["data"] |= data
    subject, payload = "operations.op-1.book.upload-start.requested", json.dumps(members).encode()
    columns = ParquetColumns()
    columns.add(StoredEvent(ScannedMessage(1, subject, payload, 0), decode_envelope(subject, payload)))
    (found,) = columns.table().to_pylist()
    return found


def test_the_data_of_a_request() -> None:
    """Each member that has a column is in the row."""
    assert (row()["resource_id"], row()["action_version"]) == ("42", 1)


@pytest.mark.parametrize(
    "data",
    [
        {"actionVersion": 2**31},
        {"attempt": -(2**40)},
        {"deadline": "2026-11-24T15:00:00"},
        {"error": {"code": 2**90}},
        {"percent": "half"},
    ],
)
def test_data_that_no_column_can_hold(data: dict[str, Any]) -> None:
    """A foreign event has null in such columns, and its data unchanged; the others are written."""
    found = row(**data)
    assert data.items() <= json.loads(found["data"]).items()
    assert found["operation_id"] == "op-1"
    assert found["resource_id"] == (None if found["error_code"] is None else "42")
