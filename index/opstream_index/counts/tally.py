"""Adds up the steps of a count: groups with their statuses and durations. Pure.

Durations are kept as a histogram with two significant digits, so that steps can be added: a percentile is right to 5 %,
whatever the number of operations, and the memory does not grow with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

MAX_GROUPS: Final = 10_000
"""Different values of the field by which a count may have."""
_PERCENTILES: Final = (0.5, 0.95)
_MICROSECONDS: Final = 1e6


class TooManyGroups(ValueError):
    """A field has more than `MAX_GROUPS` values among the counted operations."""


class StepRow(msgspec.Struct, frozen=True, array_like=True):
    """What the database has added up of a step, for one group, status and duration."""

    key: str | None
    status: str
    bucket: int | None
    """`duration_bucket` of its duration; None for operations that have not begun or not ended."""
    number: int
    longest: int | None
    """Microseconds."""


class DurationSummary(msgspec.Struct, frozen=True):
    """How long operations took, from the beginning of their first attempt to their end. Seconds."""

    number: int
    """Of how many operations."""
    median: float
    p95: float
    """95 of 100 took this long at most."""
    longest: float


class Group(msgspec.Struct, frozen=True):
    """The operations with one value of the field, or all."""

    key: str | None
    number: int
    statuses: dict[str, int]
    """The number by status; those that none has are not there."""
    durations: DurationSummary | None
    """None if none of them has begun and ended."""


class _Sums:
    __slots__ = ("buckets", "longest", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.buckets: Counter[int] = Counter()
        self.longest = 0

    def add(self, row: StepRow) -> None:
        self.statuses[row.status] += row.number
        if row.bucket is not None:
            self.buckets[row.bucket] += row.number
            self.longest = max(self.longest, row.longest or 0)

    def group(self, key: str | None) -> Group:
        return Group(key, self.statuses.total(), dict(self.statuses), self._durations())

    def _durations(self) -> DurationSummary | None:
        number = self.buckets.total()
        if not number:
            return None
        ordered = sorted(self.buckets.items())
        median, p95 = (_percentile(ordered, math.ceil(share * number)) for share in _PERCENTILES)
        longest = self.longest / _MICROSECONDS
        return DurationSummary(number, min(median, longest), min(p95, longest), longest)


class Tally:
    """The sums of all steps so far."""

    def __init__(self) -> None:
        self._all = _Sums()
        self._groups: dict[str | None, _Sums] = {}

    def add(self, rows: Iterable[StepRow]) -> None:
        """Add a step.

        Raises:
            TooManyGroups: the field has too many values.
        """
        for row in rows:
            self._all.add(row)
            sums = self._groups.get(row.key)
            if sums is None:
                if len(self._groups) >= MAX_GROUPS:
                    raise TooManyGroups
                sums = self._groups[row.key] = _Sums()
            sums.add(row)

    def whole(self) -> Group:
        """Return all operations as one group."""
        return self._all.group(None)

    def groups(self) -> list[Group]:
        """Return the groups, the largest first, equal ones in the order of their keys."""
        found = [sums.group(key) for key, sums in self._groups.items()]
        return sorted(found, key=lambda group: (-group.number, group.key is None, group.key or ""))


def duration_bucket(microseconds: int) -> int:
    """Return the bucket of a duration: its number of digits, and the first two of them. The SQL computes the same."""
    text = str(microseconds)
    return 0 if microseconds < 10 else len(text) * 100 + int(text[:2])


def _percentile(ordered: list[tuple[int, int]], rank: int) -> float:
    for bucket, number in ordered:
        rank -= number
        if rank <= 0:
            return _seconds(bucket)
    raise AssertionError("a rank is at most the number of all")


def _seconds(bucket: int) -> float:
    """Return the middle of a bucket."""
    digits, leading = divmod(bucket, 100)
    if not digits:
        return 0.0
    width = int(10 ** (digits - 2))
    return (leading * width + (width - 1) / 2) / _MICROSECONDS
