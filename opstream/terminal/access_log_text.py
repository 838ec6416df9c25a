"""The access log as text: one row for each record."""

from __future__ import annotations

from typing import Final

from opstream_schemas.logs.access_log import AccessRecord, DenialRecord

from .console import printable
from .event_row import as_utc
from .table import text_beside

_COLUMNS: Final = "{:<19}  {:<20}  {:>6}  {:<24}"


def access_heading(width: int | None) -> str:
    """Return the heading of the rows."""
    return text_beside(_COLUMNS.format("last (UTC)", "what", "count", "who"), "where", width)


def access_row(record: AccessRecord, width: int | None) -> str:
    """Return one record.

    Args:
        record: a denial or an act.
        width: columns of the terminal; None for no limit.
    """
    if isinstance(record, DenialRecord):
        at, what, count = record.last, record.reason, f"{record.count:,}"
        who = "others" if record.is_others else _who(record.tenant, record.caller) or record.address
        key = f"key {record.key_id}" if record.key_id else ""
        address = f"from {record.address}" if record.address and record.address != who else ""
        where = " ".join(part for part in (record.method, record.path, key, address) if part)
    else:
        at, what, count, who = record.at, record.act, "", _who(record.tenant, record.by)
        where = " ".join(part for part in (record.target, record.detail) if part)
    head = _COLUMNS.format(f"{as_utc(at):%Y-%m-%d %H:%M:%S}", what, count, who or "-")
    return text_beside(printable(head), printable(where), width)


def _who(tenant: str, name: str) -> str:
    return f"{tenant}/{name}" if tenant else name
