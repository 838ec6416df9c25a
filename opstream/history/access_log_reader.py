"""Reads the access log: what was denied, and what administrators did (docs/adr/0053)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import datetime

import msgspec

from opstream_journal import Connection, NotProvisioned
from opstream_journal.access_log import MISSING
from opstream_journal.jetstream.scans.stream_scan import scan_stream
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.logs.access_log import AccessRecord, DenialRecord, decode_access_record
from opstream_schemas.subjects import ACCESS_LOG_STREAM


class AccessQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which records to read."""

    since: datetime | None = None
    """Stored then or later; None for all."""
    until: datetime | None = None
    """Stored before that; None for all."""
    caller: str = ""
    """Only those of this caller, `subject` or `tenant/subject`, address or key; empty for all."""

    def matches(self, record: AccessRecord) -> bool:
        """Return True if a record is about the caller."""
        if not self.caller:
            return True
        name = record.caller if isinstance(record, DenialRecord) else record.by
        address = record.address if isinstance(record, DenialRecord) else record.target
        return self.caller in {name, f"{record.tenant}/{name}", record.key_id, address}


async def read_access_log(
    connection: Connection, query: AccessQuery, notice: Callable[[str], None]
) -> AsyncGenerator[AccessRecord, None]:
    """Yield the records, oldest first.

    Args:
        connection: the connection.
        query: which ones.
        notice: gets a line about each record that can't be read.

    Raises:
        NotProvisioned: the broker has no such stream; the message says what to run.
        JournalError: the broker refused or did not answer.
    """
    try:
        async with contextlib.aclosing(scan_stream(connection, ACCESS_LOG_STREAM, since=query.since)) as batches:
            async for batch in batches:
                for message in batch:
                    if query.until is not None and message.stored_at >= query.until:
                        return
                    try:
                        record = decode_access_record(message.data)
                    except InvalidEvent as error:
                        notice(f"record {message.sequence} is skipped: {error}")
                        continue
                    if query.matches(record):
                        yield record
    except NotProvisioned as error:
        raise NotProvisioned(MISSING) from error
