"""What a sweep remembers of what it has seen, in memory that stays flat. Callers: `sweeping.py` and its judges."""

from __future__ import annotations

from typing import Final

_MARKS: Final = 16 * 1024 * 1024
_NAMED: Final = 20


class Marks:
    """Revisions of entries, one bit each: of those from `first` on, as many as fit into `size` bytes."""

    def __init__(self, first: int, size: int = _MARKS) -> None:
        self._first = first
        self._size = size
        self._bits = bytearray()

    def add(self, revision: int) -> None:
        """Mark one; one beyond the window is forgotten."""
        place, bit = divmod(revision - self._first, 8)
        if not 0 <= place < self._size:
            return
        if place >= len(self._bits):
            self._bits.extend(bytes(min(max(place + 1, 2 * len(self._bits)), self._size) - len(self._bits)))
        self._bits[place] |= 1 << bit

    def __contains__(self, revision: int) -> bool:
        place, bit = divmod(revision - self._first, 8)
        return 0 <= place < len(self._bits) and bool(self._bits[place] >> bit & 1)


class Named:
    """Operations that are told of: all counted (one that comes again, again), the first ones named, with a reason."""

    def __init__(self) -> None:
        self.count = 0
        self.first: dict[str, str] = {}

    def add(self, operation_id: str, why: str) -> None:
        """Count one."""
        if operation_id in self.first:
            return
        self.count += 1
        if len(self.first) < _NAMED:
            self.first[operation_id] = why
