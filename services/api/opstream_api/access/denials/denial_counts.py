"""Counts denials for each caller, reason and minute, in bounded memory, and loses none. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

MINUTE: Final = 60.0
"""Seconds of one row."""


class DenialKey(NamedTuple):
    """What the denials of one row have in common, besides the minute."""

    reason: str
    tenant: str = ""
    caller: str = ""
    key_id: str = ""
    address: str = ""
    """Of a stranger."""


class DenialRow:
    """The denials of one row.

    Attributes:
        count: how many.
        first, last: Unix seconds.
        address, method, path: of one of the requests.
    """

    __slots__ = ("address", "count", "first", "last", "method", "path")

    def __init__(self, at: float, address: str, method: str, path: str) -> None:
        self.count = 1
        self.first = self.last = at
        self.address = address
        self.method = method
        self.path = path

    def add(self, other: DenialRow) -> None:
        """Add the denials of another row."""
        self.count += other.count
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)


class CountedDenials(NamedTuple):
    """A row that is to be written."""

    key: DenialKey
    row: DenialRow
    is_others: bool
    """True for those that had no row of their own."""


class DenialCounts:
    """Denials that are not written yet.

    Args:
        limit: rows. Beyond it denials are counted in one row a reason, whatever the caller and the minute.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[tuple[int, DenialKey], DenialRow] = {}
        self._others: dict[str, DenialRow] = {}

    def __len__(self) -> int:
        return len(self._rows) + len(self._others)

    def add(self, key: DenialKey, row: DenialRow) -> None:
        """Count the denials of a row, which are of the minute of its `first`."""
        at = (int(row.first // MINUTE), key)
        known = self._rows.get(at)
        if known is not None:
            known.add(row)
        elif len(self._rows) < self._limit:
            self._rows[at] = row
        else:
            self._add_to_others(key.reason, row)

    def take(self, before: float) -> list[CountedDenials]:
        """Remove and return the rows of the minutes that ended before a time in Unix seconds, oldest first."""
        ended = sorted(at for at in self._rows if (at[0] + 1) * MINUTE <= before)
        taken = [CountedDenials(at[1], self._rows.pop(at), is_others=False) for at in ended]
        others, self._others = self._others, {}
        return taken + [CountedDenials(DenialKey(reason), row, is_others=True) for reason, row in others.items()]

    def put_back(self, denials: CountedDenials) -> None:
        """Count denials again that were taken and could not be written."""
        if denials.is_others:
            self._add_to_others(denials.key.reason, denials.row)
        else:
            self.add(denials.key, denials.row)

    def _add_to_others(self, reason: str, row: DenialRow) -> None:
        known = self._others.get(reason)
        if known is not None:
            known.add(row)
        else:
            row.address = ""
            self._others[reason] = row
