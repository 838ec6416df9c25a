"""Records of the access log as rows: who, what and where, for denials and for acts, whatever a record holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from opstream.terminal.access_log_text import access_heading, access_row
from opstream_schemas.logs.access_log import ActRecord, AdminAct, DenialReason, DenialRecord

pytestmark = pytest.mark.unit

FIRST = datetime(2026, 11, 30, 8, 0, 0, tzinfo=UTC)
LAST = datetime(2026, 11, 30, 10, 0, 59, tzinfo=timezone(timedelta(hours=2)))


def denial(reason: str = DenialReason.MISSING_SCOPE, **more: Any) -> DenialRecord:
    """Three denials of a minute."""
    return DenialRecord(reason=reason, **{"count": 3, "first": FIRST, "last": LAST, **more})


def act(what: str = AdminAct.PROVISIONED, **more: Any) -> ActRecord:
    """One act."""
    return ActRecord(act=what, at=FIRST, **more)


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (
            denial(tenant="acme", caller="ann", key_id="k1", address="::1", method="POST", path="/{path}"),
            "2026-11-30 08:00:59  missing-scope              3  acme/ann                  POST /{path} key k1 from ::1",
        ),
        (
            denial(caller="ann", method="GET", path="/status/{id}"),
            "2026-11-30 08:00:59  missing-scope              3  ann                       GET /status/{id}",
        ),
        (
            denial(DenialReason.WRONG_SECRET, address="2001:db8::/64", key_id="k1"),
            "2026-11-30 08:00:59  wrong-secret               3  2001:db8::/64             key k1",
        ),
        (
            denial(DenialReason.UNKNOWN_KEY, count=12_345, is_others=True),
            "2026-11-30 08:00:59  unknown-key           12,345  others",
        ),
        (denial("a-later-reason"), "2026-11-30 08:00:59  a-later-reason             3  -"),
        (
            act(AdminAct.KEY_REVOKED, by="root@host", target="k1", detail="of acme/ann"),
            "2026-11-30 08:00:00  key-revoked                   root@host                 k1 of acme/ann",
        ),
        (
            act(AdminAct.CANCELED, by="root", tenant="acme", target="op-1"),
            "2026-11-30 08:00:00  canceled                      acme/root                 op-1",
        ),
        (act("a-later-act"), "2026-11-30 08:00:00  a-later-act                   -"),
    ],
    ids=lambda one: "" if isinstance(one, str) else getattr(one, "reason", "") or getattr(one, "act", ""),
)
def test_rows(record: DenialRecord | ActRecord, row: str) -> None:
    """Times are in UTC; who is known is named with the tenant, a stranger by the address, which is not shown twice."""
    assert access_row(record, None) == row


def test_the_heading_stands_above_the_columns() -> None:
    """Each column of a row begins below its name."""
    heading = access_heading(None)
    row = access_row(act(by="root@host", target="target-of-it"), None)
    assert heading.index("where") == row.index("target-of-it")
    assert heading.index("who") == row.index("root@host")
    assert heading.index("what") == row.index("provisioned")


def test_a_narrow_terminal() -> None:
    """What does not fit beside the columns goes below them, and no line is wider than the terminal."""
    detail = "made stream OPERATIONS; made stream TIMERS; put right consumer webhooks"
    lines = access_row(act(by="root@host", detail=detail), 90).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) < 90
    assert " ".join(" ".join(line.split()) for line in lines[1:]) == detail


def test_no_record_moves_the_cursor() -> None:
    """Nothing that was stored reaches the terminal as a control character."""
    row = access_row(act("\x1b[2Jprovisioned", by="root\r@host", detail="a\nb\x07\u202e"), None)
    assert row.isprintable()
