"""Items of a list: the names and forms of the status monitor, and no member that is absent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from opstream_index.filters.fields import MEMBERS
from opstream_index.lists.items import ListRow, item_of
from opstream_schemas.status_monitor import StatusMonitor

pytestmark = pytest.mark.unit

ROW = ListRow(
    place=7,
    id="stored",
    own_id="own",
    caller="ann",
    resource="book",
    action="print",
    resource_id="42",
    status="Failed",
    code="503",
    message="no paper",
    created_at=1,
    start_at=2,
    started_at=2,
    finished_at=3,
    attempt=1,
    version=2,
    labels='{"team":"press"}',
    retry_of="other",
    parent="above",
    expires_at=9,
)
ABSENT: dict[str, Any] = dict.fromkeys(
    (
        "caller",
        "resource_id",
        "code",
        "message",
        "start_at",
        "started_at",
        "finished_at",
        "labels",
        "retry_of",
        "parent",
    )
)


def encoded(row: ListRow, *selected: str) -> dict[str, Any]:
    """An item as it is sent."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(item_of(row, selected or MEMBERS)))
    return found


def test_an_item_has_all_members() -> None:
    """The stored id is none of them."""
    assert encoded(ROW) == {
        "id": "own",
        "status": "Failed",
        "error": {"code": 503, "message": "no paper"},
        "kind": "book:print",
        "resourceId": "42",
        "createdAt": "1970-01-01T00:00:00.000001Z",
        "startAt": "1970-01-01T00:00:00.000002Z",
        "startedAt": "1970-01-01T00:00:00.000002Z",
        "finishedAt": "1970-01-01T00:00:00.000003Z",
        "attempt": 1,
        "version": 2,
        "caller": "ann",
        "labels": {"team": "press"},
        "retryOf": "other",
        "parent": "above",
    }
    assert list(encoded(ROW)) == list(MEMBERS)


def test_members_of_the_monitor_are_spelled_alike() -> None:
    """What both have they have in one form."""
    monitor = StatusMonitor(
        id="own", status="NotStarted", kind="book:print", created_at=datetime(1970, 1, 1, 0, 0, 0, 1, UTC)
    )  # type: ignore[arg-type]
    open_row = ROW._replace(**ABSENT, status="NotStarted", attempt=0)
    shown = encoded(open_row)
    shown.pop("version")
    assert shown == msgspec.json.decode(msgspec.json.encode(monitor))


@pytest.mark.parametrize(
    ("code", "shown"), [("Timeout", "Timeout"), ("503", 503), ("007", "007"), ("٣", "٣"), ("-1", "-1")]
)
def test_codes(code: str, shown: object) -> None:
    """An HTTP status is a number, every other code a text."""
    assert encoded(ROW._replace(code=code))["error"]["code"] == shown


def test_a_selection() -> None:
    """Only its members are sent."""
    assert encoded(ROW, "id", "createdAt") == {"id": "own", "createdAt": "1970-01-01T00:00:00.000001Z"}
