"""The operations that this process folded last, so that a poll costs a single read of the journal.

A cached state may be old: compare it with the operation's last event in the journal. Only a terminal state is final.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from opstream_schemas.operation.state import Operation

MAX_OPERATIONS: Final = 4096
MAX_BYTES: Final = 32 * 1024 * 1024
"""Estimated. Results are most of it, and one may have 256 KiB."""
_FIXED_BYTES: Final = 2048
"""One operation without its texts and result: about 40 Python objects."""


class OperationCache:
    """The most recently used operations, bounded in number and bytes."""

    def __init__(self, *, max_operations: int = MAX_OPERATIONS, max_bytes: int = MAX_BYTES) -> None:
        self._max_operations = max_operations
        self._max_bytes = max_bytes
        self._bytes = 0
        self._operations: OrderedDict[str, Operation] = OrderedDict()
        self._is_suspended = False

    def __len__(self) -> int:
        return len(self._operations)

    @property
    def is_suspended(self) -> bool:
        """Return True while the journal is known to have a setback."""
        return self._is_suspended

    @property
    def size(self) -> int:
        """Estimated bytes."""
        return self._bytes

    def get(self, operation_id: str) -> Operation | None:
        """Return the cached state of an operation; None without one."""
        operation = self._operations.get(operation_id)
        if operation is not None:
            self._operations.move_to_end(operation_id)
        return operation

    def peek(self, operation_id: str) -> Operation | None:
        """Return the same, without keeping it for longer."""
        return self._operations.get(operation_id)

    def open_ids(self) -> set[str]:
        """Return the ids of the operations whose cached state is not terminal."""
        return {operation.id for operation in self._operations.values() if not operation.is_terminal}

    def put(self, operation: Operation) -> Operation:
        """Cache a state, unless a newer one of the same operation is cached. Return the newer of the two."""
        cached = self._operations.pop(operation.id, None)
        if cached is not None:
            self._bytes -= _size(cached)
            if cached.stream_sequence > operation.stream_sequence:
                operation = cached
        if self._is_suspended and operation.is_terminal:
            return operation
        self._operations[operation.id] = operation
        self._bytes += _size(operation)
        while len(self._operations) > self._max_operations or (self._bytes > self._max_bytes and self._operations):
            _, oldest = self._operations.popitem(last=False)
            self._bytes -= _size(oldest)
        return operation

    def forget_ended(self) -> None:
        """Remove ended operations: the broker may have come back without them. Open ones are compared at each read."""
        for operation_id in self._operations.keys() - self.open_ids():
            self.drop(operation_id)

    def suspend(self, is_suspended: bool) -> None:  # noqa: FBT001 - a callback with the one thing that it says
        """Keep no ended operation while the journal has a setback.

        A forced rebuild may remove an operation from the view at any time then, and no event says so (docs/adr/0032).
        """
        self._is_suspended = is_suspended
        if is_suspended:
            self.forget_ended()

    def drop(self, operation_id: str) -> None:
        """Remove an operation from the cache."""
        cached = self._operations.pop(operation_id, None)
        if cached is not None:
            self._bytes -= _size(cached)


def _size(operation: Operation) -> int:
    result = 0 if operation.result is msgspec.UNSET else len(operation.result)
    texts = len(operation.message) + len(operation.resource_id)
    error = operation.error or operation.attempt_error
    return _FIXED_BYTES + result + texts + (len(error.message) if error else 0)
