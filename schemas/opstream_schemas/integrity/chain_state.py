"""What the check of the hash chain knows of each operation, and what it finds. Caller: `chain.py`. Pure.

Open operations have a `ChainHead` each; of those that have ended only 64 bits stay, so that memory is bounded by the
number
of operations and not by that of their events.
"""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

_INITIAL_SLOTS: Final = 1 << 10
_HASH_MASK: Final = (1 << 64) - 1


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something in a stream that its writers did not do."""

    sequence: int
    """Stream sequence of the message, or of the first one that is missing."""
    what: str
    operation_id: str = ""
    """Empty where it is no single operation's."""
    position: int = 0
    """As the message says; 0 if it says none."""

    def __str__(self) -> str:
        return f"{self.operation_id or '-'}  position {self.position or '-'}  sequence {self.sequence}  {self.what}"


class RejectedEvent(msgspec.Struct, array_like=True, gc=False):
    """An event that did not continue its operation, but that the following ones may continue."""

    position: int
    digest: str
    is_end: bool


class ChainDamage(msgspec.Struct, array_like=True):
    """What else is known of an operation with a finding."""

    last_sequence: int
    """Of the last message on the operation's subjects, whatever it is."""
    last_digest: str
    passed_over: int = 0
    """Messages that do not continue what came before them."""
    other: RejectedEvent | None = None
    findings: list[Finding] = msgspec.field(default_factory=list)
    """Not told yet: the operator may have ended the operation in knowledge of them (ADR 0014)."""


class ChainHead(msgspec.Struct, array_like=True):
    """The end of an open operation's chain. Before the first event: position 0, no hash."""

    kind: str
    position: int
    digest: str
    sequence: int
    count: int = 0
    """Messages seen on the operation's subjects."""
    missing: int = 0
    """Events before the first one that was seen."""
    trouble: ChainDamage | None = None


class CompactHashSet:
    """A set of texts that only grows, 12 to 24 bytes each: 64 bits of their hash in one array.

    Two texts are taken for the same with a probability of n² / 2⁶⁵ among n: one in 400,000 for ten million. Python's
    hash is keyed anew in each process, so nobody can choose such a pair.
    """

    def __init__(self) -> None:
        self._slots = _empty_slots(_INITIAL_SLOTS)
        self._count = 0

    def add(self, text: str) -> None:
        """Remember a text."""
        if 3 * self._count >= 2 * len(self._slots):
            self._grow()
        mark = _hash64(text)
        place = _slot_index(self._slots, mark)
        if not self._slots[place]:
            self._slots[place] = mark
            self._count += 1

    def __contains__(self, text: str) -> bool:
        return bool(self._slots[_slot_index(self._slots, _hash64(text))])

    def __len__(self) -> int:
        return self._count

    def _grow(self) -> None:
        slots = _empty_slots(2 * len(self._slots))
        for mark in self._slots:
            if mark:
                slots[_slot_index(slots, mark)] = mark
        self._slots = slots


def _empty_slots(size: int) -> array[int]:
    return array("Q", bytes(8 * size))


def _hash64(text: str) -> int:
    return hash(text) & _HASH_MASK or 1


def _slot_index(slots: array[int], mark: int) -> int:
    """Where a mark is, or belongs."""
    last = len(slots) - 1
    place = mark & last
    while (there := slots[place]) and there != mark:
        place = (place + 1) & last
    return place
