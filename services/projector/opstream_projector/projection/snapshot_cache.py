"""The snapshots that this process wrote last, with their revisions, so that the usual case needs no read.

Caller: `writer.py`. What is here may be outdated (another replica writes too); the guard of the next write tells.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from opstream_journal import SnapshotEntry
from opstream_schemas.operation.state import Operation

_FIXED_BYTES: Final = 2_000
"""About what an operation takes in memory besides its texts and result."""


class SnapshotCache:
    """A mapping from operation id to entry that forgets the least recently used ones.

    Args:
        max_entries: how many it keeps at most.
        max_bytes: about how much memory they may take; a single result may have 256 KiB.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[SnapshotEntry, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, operation_id: str) -> SnapshotEntry | None:
        """The entry, if it is remembered."""
        found = self._entries.get(operation_id)
        if found is None:
            return None
        self._entries.move_to_end(operation_id)
        return found[0]

    def put(self, operation: Operation, revision: int) -> None:
        """Remember what is stored under `revision`."""
        self.discard(operation.id)
        size = memory_size(operation)
        self._entries[operation.id] = (SnapshotEntry(revision, operation), size)
        self._bytes += size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed

    def discard(self, operation_id: str) -> None:
        """Drop an entry."""
        found = self._entries.pop(operation_id, None)
        if found is not None:
            self._bytes -= found[1]


def memory_size(operation: Operation) -> int:
    """About how many bytes an operation takes in memory."""
    size = _FIXED_BYTES + len(operation.message) + len(operation.reason)
    if operation.result is not msgspec.UNSET:
        size += len(memoryview(operation.result))
    for error in (operation.error, operation.attempt_error):
        if error is not None:
            size += len(error.message)
    return size
