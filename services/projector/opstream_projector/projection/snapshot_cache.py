"""The snapshots that this process wrote last, with their revisions: most updates then need no read.

An entry may be out of date, because other replicas write too. The next write notices: it expects the cached revision.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from opstream_journal import SnapshotEntry
from opstream_schemas.operation.state import Operation

_FIXED_BYTES: Final = 2_000
"""Approximate memory of an operation without its texts and result."""


class SnapshotCache:
    """A least-recently-used cache of entries by operation id.

    Args:
        max_entries: entries at most.
        max_bytes: approximate memory at most; a single result may have 256 KiB.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[SnapshotEntry, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, operation_id: str) -> SnapshotEntry | None:
        """Return the cached entry, if there is one."""
        found = self._entries.get(operation_id)
        if found is None:
            return None
        self._entries.move_to_end(operation_id)
        return found[0]

    def update(self, operation: Operation, revision: int) -> None:
        """Cache a snapshot that is stored under `revision`, unless the operation has ended: no event follows then."""
        if operation.is_terminal:
            self.discard(operation.id)
        else:
            self.put(operation, revision)

    def put(self, operation: Operation, revision: int) -> None:
        """Cache a snapshot that is stored under `revision`; evict old entries."""
        self.discard(operation.id)
        size = memory_size(operation)
        self._entries[operation.id] = (SnapshotEntry(revision, operation), size)
        self._bytes += size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed

    def discard(self, operation_id: str) -> None:
        """Remove an entry, if there is one."""
        found = self._entries.pop(operation_id, None)
        if found is not None:
            self._bytes -= found[1]


def memory_size(operation: Operation) -> int:
    """Return the approximate memory of an operation in bytes."""
    size = _FIXED_BYTES + len(operation.message) + len(operation.reason)
    if operation.result is not msgspec.UNSET:
        size += len(memoryview(operation.result))
    for error in (operation.error, operation.attempt_error):
        if error is not None:
            size += len(error.message)
    return size
