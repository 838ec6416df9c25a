"""Reads a page of a list. It blocks: call it in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from opstream_index.errors import IndexUnavailable
from opstream_index.filters.order import DEFAULT_PAGE_SIZE, ListOrder
from opstream_index.filters.syntax import Term
from opstream_index.store import Coverage

from .items import ListRow
from .plan import ListScope, Place, Walk, candidates
from .sql import Dialect, ListSql, Statement

PAGE_SECONDS: Final = 0.006
"""Seconds after which no further window is read for a page."""
TIMEOUT: Final = 5.0
"""Seconds that one query may take."""


class IndexQueries(Protocol):
    """Answers queries (`store.IndexReader`)."""

    def fetch(self, statement: str, parameters: Any = (), *, timeout: float = ...) -> list[tuple[Any, ...]]:  # noqa: ANN401
        """Return the rows of a query."""
        ...

    def coverage(self) -> Coverage:
        """Return how complete the index is."""
        ...


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a page is asked for."""

    term: Term | None = None
    order: ListOrder = ListOrder()
    scope: ListScope = ListScope()
    size: int = DEFAULT_PAGE_SIZE
    after: Place | None = None


class ListPage(msgspec.Struct, frozen=True):
    """A page."""

    rows: list[ListRow]
    """At most as many as were asked for."""
    next: Place | None
    """Where the next page goes on; None if there is none. A page may have fewer rows, or none, and still a next one."""


class ListReader:
    """Reads pages of lists from an index.

    Args:
        queries: the index.
        dialect: of its database.
        clock: monotonic seconds.
    """

    def __init__(self, queries: IndexQueries, dialect: Dialect, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._queries = queries
        self._dialect = dialect
        self._clock = clock

    def coverage(self) -> Coverage:
        """Return how complete the index is.

        Raises:
            IndexUnavailable: the database does not answer.
        """
        return self._queries.coverage()

    def page(self, query: ListQuery, now: int) -> ListPage:
        """Return a page. It is not full if that would take longer than `PAGE_SECONDS`.

        Args:
            query: what is asked for.
            now: microseconds since 1970 (UTC).

        Raises:
            IndexUnavailable: the database does not answer.
            QueryTimeout: it took too long.
        """
        end = self._clock() + PAGE_SECONDS
        walk = self.walk(query)
        rows: list[ListRow] = []
        after = query.after
        while True:
            sql = ListSql(self._dialect, query.term, query.order, query.scope, after)
            wanted = query.size - len(rows)
            found = [ListRow(*row) for row in self._fetch(sql.page(walk, wanted, now))]
            rows += found[:wanted]
            _check_order(rows, query.order)
            if len(found) > wanted:
                return ListPage(rows, _place(rows[-1].place, rows[-1].finished_at, query.order))
            left = self._fetch(sql.end_of_window(walk))
            if not left:
                return ListPage(rows, None)
            after = _place(left[0][0], left[0][1], query.order)
            if len(rows) == query.size or self._clock() >= end:
                return ListPage(rows, after)

    def walk(self, query: ListQuery) -> Walk:
        """Return the walk with the fewest entries, as far as a look at them says."""
        found = candidates(query.term, query.order, query.scope, has_texts=self._dialect.has_texts)
        if len(found) == 1:
            return found[0]
        sql = ListSql(self._dialect, query.term, query.order, query.scope, query.after)
        sign = -1 if query.order.is_descending else 1
        best, furthest = found[-1], None
        for walk in found[:-1]:
            probed = self._fetch(sql.probe(walk))
            if not probed:
                return walk
            if walk.is_in_order and (furthest is None or sign * probed[0][0] > furthest):
                best, furthest = walk, sign * probed[0][0]
        return best

    def _fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self._queries.fetch(statement.text, statement.parameters, timeout=TIMEOUT)


def _place(place: int, finished_at: int | None, order: ListOrder) -> Place:
    return Place(place, (finished_at or 0) if order.column == "finished_at" else 0)


def _check_order(rows: Iterable[ListRow], order: ListOrder) -> None:
    """Refuse rows that are not in order: a cursor made from them would leave operations out.

    Raises:
        IndexUnavailable: which no database does that keeps the order of a query in brackets.
    """
    places = [_key(row, order) for row in rows]
    if places != sorted(places, reverse=order.is_descending):
        raise IndexUnavailable("the rows of the index came out of order")


def _key(row: ListRow, order: ListOrder) -> tuple[int, int]:
    return ((row.finished_at or 0) if order.column == "finished_at" else 0, row.place)
