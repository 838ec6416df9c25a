"""What the verification of hash chains remembers of each operation, and what it finds. Pure.

An open operation has a `ChainHead`. Of one that ended, 64 bits remain, so memory grows with the number of operations
and not with that of their events.
"""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

_INITIAL_SLOTS: Final = 1 << 10
_HASH_MASK: Final = (1 << 64) - 1


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something in a stream that opstream did not write."""

    sequence: int
    """Stream sequence of the message, or of the first missing one."""
    what: str
    operation_id: str = ""
    """Empty if the finding is not about a single operation."""
    position: int = 0
    """Position in the message; 0 if it has none."""

    def __str__(self) -> str:
        return f"{self.operation_id or '-'}  position {self.position or '-'}  sequence {self.sequence}  {self.what}"


class RejectedEvent(msgspec.Struct, array_like=True, gc=False):
    """An event that did not continue its operation. Later events may continue it."""

    position: int
    digest: str
    is_end: bool


class ChainDamage(msgspec.Struct, array_like=True):
    """What is also known of an operation with a finding."""

    last_sequence: int
    """Sequence of the last message on the operation's subjects, event or not."""
    last_digest: str
    passed_over: int = 0
    """Number of messages that do not continue the operation."""
    other: RejectedEvent | None = None
    findings: list[Finding] = msgspec.field(default_factory=list)
    """Findings that are not reported yet: a forced end may turn them into notes (ADR 0014)."""


class ChainHead(msgspec.Struct, array_like=True):
    """The end of an open operation's chain. Before the first event: position 0, no hash."""

    kind: str
    position: int
    digest: str
    sequence: int
    count: int = 0
    """Number of messages on the operation's subjects."""
    missing: int = 0
    """Number of events before the first one in the stream."""
    trouble: ChainDamage | None = None


class CompactHashSet:
    """A set of texts that only grows, of which it keeps 64 bits of their hash in one array.

    It takes 12 to 24 bytes a text, where a `set` of the same hashes takes over 60: for ten million operations, that is
    500 MB less.

    Two of n texts are taken for the same with a probability of n² / 2⁶⁵: one in 400,000 for ten million. Python chooses
    another key for its hash in each process, so an attacker can't choose such a pair.
    """

    def __init__(self) -> None:
        self._slots = _empty_slots(_INITIAL_SLOTS)
        self._count = 0

    def add(self, text: str) -> None:
        """Add a text."""
        if 3 * self._count >= 2 * len(self._slots):
            self._grow()
        hashed = _hash64(text)
        index = _slot_index(self._slots, hashed)
        if not self._slots[index]:
            self._slots[index] = hashed
            self._count += 1

    def __contains__(self, text: str) -> bool:
        return bool(self._slots[_slot_index(self._slots, _hash64(text))])

    def __len__(self) -> int:
        return self._count

    def _grow(self) -> None:
        slots = _empty_slots(2 * len(self._slots))
        for hashed in self._slots:
            if hashed:
                slots[_slot_index(slots, hashed)] = hashed
        self._slots = slots


def _empty_slots(size: int) -> array[int]:
    return array("Q", bytes(8 * size))


def _hash64(text: str) -> int:
    return hash(text) & _HASH_MASK or 1


def _slot_index(slots: array[int], hashed: int) -> int:
    """Return the index of the slot that holds the hash, or that is free for it."""
    last = len(slots) - 1
    index = hashed & last
    while (there := slots[index]) and there != hashed:
        index = (index + 1) & last
    return index
