"""Moves a journal that has lost its end past the place up to which the archive has copied it (docs/adr/0032).

The archive goes by the journal's sequences. After a setback they run again, and the broker would copy none of the new
events until they have passed that place. Wake-ups of an action that does not exist take these sequences instead: every
reader passes them over.
"""

from __future__ import annotations

import asyncio
from typing import Final

from opstream_journal.errors import JournalError, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.scans.stream_scan import stream_identity
from opstream_schemas import subjects
from opstream_schemas.names import Kind

from .journal_witnesses import archived_sequence

MAX_SKIPPED: Final = 1_000_000
"""Sequences that are skipped at most: each is a message of some hundred bytes."""

_SUBJECT: Final = subjects.fired_wake_subject(Kind("opstream", "setback"), "none", "skip")
_AT_ONCE: Final = 200
_COPY_TIMEOUT: Final = 60.0
"""Seconds without any progress after which the broker is taken not to copy."""
_POLL: Final = 0.1


async def skip_archived_sequences(connection: Connection) -> int:
    """Move the journal's end to what the archive has copied. Return how many sequences were skipped.

    Raises:
        JournalError: there are more than `MAX_SKIPPED`, the broker does not copy, or it refused.
        JournalUnavailable: the broker did not answer.
    """
    archived = await archived_sequence(connection)
    last = (await stream_identity(connection, subjects.OPERATIONS_STREAM)).last
    count = max(0, archived - last)
    if count > MAX_SKIPPED:
        raise JournalError(
            f"the archive has copied up to sequence {archived:,} of the journal, which ends at {last:,}: it copies no "
            "new event before the journal has passed that. Restore the journal, or back the archive up and remake it"
        )
    for start in range(0, count, _AT_ONCE):
        batch = range(min(_AT_ONCE, count - start))
        await asyncio.gather(*(rpc.publish(connection, _SUBJECT, b"", {}) for _ in batch))
        await _wait_for(connection, last + start + len(batch))
    return count


async def _wait_for(connection: Connection, sequence: int) -> None:
    loop = asyncio.get_running_loop()
    until, seen = loop.time() + _COPY_TIMEOUT, 0
    while True:
        last = (await stream_identity(connection, subjects.OPERATIONS_STREAM)).last
        if last >= sequence:
            return
        if last > seen:
            until, seen = loop.time() + _COPY_TIMEOUT, last
        if loop.time() > until:
            raise JournalUnavailable(
                f"the broker does not copy from {subjects.TIMERS_STREAM} to the journal", maybe_stored=True
            )
        await connection.sleep(_POLL)
