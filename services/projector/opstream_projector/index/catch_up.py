"""Reads what the index lacks from the view: the entries behind a revision, and then what has ended unseen.

The view holds each operation within its retention once, folded, so an index is made again from as many messages as it
gets rows. What happened to an operation while the index was away has left an entry with a higher revision. Only an
operation whose time has run out meanwhile has none: it is recognised by its open row.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from opstream_journal import Connection, Journal
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.stores.snapshots import VIEW_STREAM, RawSnapshot, SnapshotReader, operation_id_of
from opstream_projector.projection.snapshot_fold import fold_all
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

PAGE: Final = 256
"""Open rows that are compared at once."""


class CatchUp:
    """One pass over what an index lacks.

    Args:
        connection: the connection.
        journal: started; read for operations whose entry this version can't use.
    """

    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal
        self.operations = 0
        """How many were stored."""

    async def read_view(self, first: int, store: Callable[[Sequence[Operation], int], Awaitable[None]]) -> int:
        """Pass on the operations of all entries from a revision to the present end of the view.

        Args:
            first: the revision to begin with.
            store: called with some operations, and the revision up to which that are all.

        Returns:
            The revision of the end.

        Raises:
            JournalError: the broker was away for too long, or refused.
        """
        last = (await stream_bounds(self._connection, VIEW_STREAM)).last
        if first <= last:
            scan = scan_stream(self._connection, VIEW_STREAM, first=first, last=last, is_paged=True)
            async for messages in scan:
                found = []
                for message in messages:
                    if not message.data:
                        continue  # an entry that has expired, or was removed
                    operation_id = operation_id_of(message.subject)
                    operation = RawSnapshot(operation_id, message.sequence, message.data).operation
                    operation = operation or await self._fold(operation_id)
                    if operation is not None:
                        found.append(operation)
                await store(found, messages[-1].sequence)
                self.operations += len(found)
        return last

    async def compare_open(
        self, rows: Sequence[tuple[int, str, int]], entries: SnapshotReader
    ) -> tuple[list[Operation], list[int]]:
        """Look what has become of operations that are open in the index.

        Args:
            rows: place, id and position of each.
            entries: started.

        Returns:
            The operations of which more is known, and the places of those of which nothing is left.

        Raises:
            JournalError: the broker was away, or refused.
        """
        known = await entries.get([one for _, one, _ in rows])
        newer, gone = [], []
        for place, operation_id, position in rows:
            entry = known.get(operation_id)
            operation = entry.operation if entry is not None else None
            if operation is None:  # not on that replica, of another version of the fold, or expired
                operation = await self._fold(operation_id)
            if operation is None:
                gone.append(place)
            elif operation.stream_sequence > position:
                newer.append(operation)
        return newer, gone

    async def _fold(self, operation_id: str) -> Operation | None:
        try:
            events = await self._journal.events(operation_id)
        except InvalidEvent as error:
            logger.error("operation %s can't be read, so it is not in the index: %s", operation_id, error)  # noqa: TRY400
            return None
        return fold_all(events).operation if events else None
