"""How an index is written and read, whichever database it is in.

Everything here blocks: call it in a thread. A writer or reader serves one thread at a time. `drivers` opens one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from .operation_row import OperationRow

STALE_AFTER: Final = 60.0
"""Seconds without a sign of life after which a writer is taken for dead, and what it owes is caught up with."""
FORGET_AFTER: Final = 5.0
"""Seconds without a sign of life after which a writer is forgotten whose debt is paid."""


class Debt(msgspec.Struct, frozen=True, kw_only=True):
    """What the index lacks: entries of the view after a revision."""

    revision: int
    """All entries of the view up to this revision are in the index, if it is newer than what they were made from."""
    complete_until: int
    """The index has all that was stored before this time: microseconds since 1970; 0 if it has never been complete."""
    is_complete: bool
    """False if the index has not been made to its end: then rows of older operations are missing."""
    writers: tuple[tuple[str, int], ...] = ()
    """The writers of whom it is, each with the time of its last sign of life."""


NEW_INDEX: Final = Debt(revision=0, complete_until=0, is_complete=False)
"""What an index lacks in which nothing is yet."""


def debt_of(writers: Sequence[tuple[str, int, int, int, int]]) -> Debt | None:
    """Return what writers owe together, from their rows (`tables.WRITER_COLUMNS`); None if there are none."""
    if not writers:
        return None
    names, revisions, times, complete, seen = zip(*writers, strict=True)
    return Debt(
        revision=min(revisions),
        complete_until=min(times),
        is_complete=all(complete),
        writers=tuple(zip(names, seen, strict=True)),
    )


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How complete the index is."""

    is_complete: bool
    """False before it has been made for the first time, or again: rows are missing."""
    complete_until: int
    """It has all that was stored before this time: microseconds since 1970; 0 if it has never been complete."""

    def lag(self, now: int) -> float:
        """Return how many seconds the index is behind at a time (microseconds since 1970).

        It is that of the writer that is furthest behind. The writers renew it every second.
        """
        return max(0.0, (now - self.complete_until) / 1e6)


SELECT_COVERAGE: Final = "SELECT min(is_complete), min(complete_until) FROM writer"
"""What `coverage_of` takes: the index is as complete as the writer that is furthest behind."""


def coverage_of(rows: Sequence[tuple[int | None, int | None]]) -> Coverage:
    """Return how complete the index is, from the row of `SELECT_COVERAGE`; not at all while it has no writer."""
    is_complete, until = rows[0]
    return Coverage(is_complete=bool(is_complete), complete_until=until or 0)


class IndexOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """What an index was made from."""

    source: str = ""
    """Identifies journal and view; empty for an index in which nothing is yet."""
    revision: int = 0
    """The highest mark of all writers."""
    position: int = 0
    """The highest stream sequence in the rows of operations that were created last."""

    def is_of(self, source: str) -> bool:
        """Return True if the index was made from this journal and view, or is new."""
        return self.source in {"", source}

    def is_ahead_of(self, revision: int, position: int) -> bool:
        """Return True if the view ends before this revision, or the journal before this position: they were set back.

        Args:
            revision: the last one of the view, read after this struct.
            position: the last stream sequence of the journal, likewise.
        """
        return self.revision > revision or self.position > position


class IndexWriter(Protocol):
    """Writes rows; one in each projector process."""

    def open(self, name: str) -> IndexOrigin:
        """Connect, make the tables if need be, and return what the index was made from.

        Args:
            name: of the writer, another one for each process.

        Raises:
            IndexUnavailable: the database does not answer.
            IndexUnusable: it can't hold an index.
        """
        ...

    def make_again(self) -> None:
        """Drop all that is in the index.

        Raises:
            IndexUnavailable: the database does not answer.
        """
        ...

    def begin(self, source: str) -> Debt:
        """Record what the index is made from, and return what is to be caught up with.

        Raises:
            IndexUnavailable: the database does not answer.
        """
        ...

    def write(self, rows: Sequence[OperationRow]) -> None:
        """Insert or update the rows of different operations that are newer than what is there, all or none.

        Raises:
            IndexUnavailable: not written.
        """
        ...

    def mark(self, debt: Debt, now: int) -> None:
        """Record how far this writer is, and that it lives.

        Args:
            debt: what it owes.
            now: microseconds since 1970.

        Raises:
            IndexUnavailable: not recorded. The index is gone, or was made again: open it again.
        """
        ...

    def stale(self, now: int) -> Debt | None:
        """Return what writers owe that have shown no life for `STALE_AFTER`; None if there are none.

        Raises:
            IndexUnavailable: the database does not answer.
        """
        ...

    def forget(self, debt: Debt, now: int) -> None:
        """Remove writers whose debt is paid, as far as they have shown no life since, for `FORGET_AFTER` at least.

        One that lives nevertheless enters itself again with its next mark.
        """
        ...

    def open_operations(self, after: int, count: int) -> list[tuple[int, str, int]]:
        """Return place, id and position of operations that have not ended, in order, after a place: a page."""
        ...

    def remove(self, places: Sequence[int]) -> None:
        """Remove rows."""
        ...

    def expire(self, now: int, count: int) -> int:
        """Remove at most so many rows whose time is over (`expires_at`). Return how many were removed."""
        ...

    def close(self) -> None:
        """Leave the database. The writer's entry stays: what it owes at the next start."""
        ...


class IndexReader(Protocol):
    """Reads; the API has some."""

    placeholder: str
    """What stands for a parameter in a statement."""

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, timeout: float = 5.0) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Args:
            statement: a SELECT, with `placeholder` for each parameter.
            parameters: their values.
            timeout: seconds that it may take.

        Raises:
            QueryTimeout: it took longer.
            IndexUnavailable: the database does not answer, or has no index yet.
        """
        ...

    def coverage(self) -> Coverage:
        """Return how complete the index is.

        Raises:
            IndexUnavailable: the database does not answer, or has no index yet.
        """
        ...

    def close(self) -> None:
        """Leave the database."""
        ...
