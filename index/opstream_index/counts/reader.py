"""Counts operations, step by step from the newest on. It blocks: call it in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import FieldCondition, Operator, Term, conjuncts_of
from opstream_index.lists.plan import ListScope, Walk
from opstream_index.lists.reader import TIMEOUT, IndexQueries, ListQuery, ListReader
from opstream_index.lists.sql import Dialect
from opstream_index.operation_row import PLACE_BITS
from opstream_index.store import Coverage

from .group_field import GroupField
from .sql import CountSql
from .tally import Group, StepRow, Tally

COUNT_SECONDS: Final = 2.0
"""Seconds after which no further step is begun."""
STEP: Final = 50_000
"""Rows of an index that one step reads, or a few more: those of one microsecond stay together."""

_LOWER: Final = frozenset({Operator.EQ, Operator.GE, Operator.GT})
_UPPER: Final = frozenset({Operator.EQ, Operator.LE, Operator.LT})


class CountQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted."""

    term: Term | None = None
    group_field: GroupField | None = None
    scope: ListScope = ListScope()


class CountResult(msgspec.Struct, frozen=True):
    """The answer."""

    whole: Group
    groups: list[Group]
    """By the values of the field, the largest first; empty without one."""
    order: ListOrder
    counted_from: int | None
    """Microseconds since 1970 (UTC): only operations were counted whose time, by which the steps go, is this one or
    later; None if all were."""


class CountReader:
    """Counts operations in an index.

    Args:
        queries: the index.
        dialect: of its database.
        clock: monotonic seconds.
    """

    def __init__(self, queries: IndexQueries, dialect: Dialect, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._queries = queries
        self._dialect = dialect
        self._clock = clock
        self._lists = ListReader(queries, dialect)

    def coverage(self) -> Coverage:
        """Return how complete the index is.

        Raises:
            IndexUnavailable: the database does not answer.
        """
        return self._queries.coverage()

    def count(self, query: CountQuery, now: int) -> CountResult:
        """Count the operations that a filter selects.

        Args:
            query: what is counted.
            now: microseconds since 1970 (UTC).

        Raises:
            IndexUnavailable: the database does not answer.
            QueryTimeout: a step took too long.
            TooManyGroups: the field has too many values.
        """
        until = self._clock() + COUNT_SECONDS
        order = order_of(query.term)
        walk = self._lists.walk(ListQuery(term=query.term, order=order, scope=query.scope))
        tally = Tally()
        end: int | None = None
        while True:
            sql = CountSql(self._dialect, query.term, order, query.scope, end)
            begin = self._begin_of_step(sql, walk, order)
            tally.add(self._sums(sql, walk, query.group_field, begin, now))
            if begin is None or self._clock() >= until:
                groups = tally.groups() if query.group_field is not None else []
                return CountResult(tally.whole(), groups, order, begin)
            end = begin

    def _begin_of_step(self, sql: CountSql, walk: Walk, order: ListOrder) -> int | None:
        """Return the time of the last row of a step; None if the step has all that is left."""
        statement = sql.end_of_window(walk, STEP)
        found = self._queries.fetch(statement.text, statement.parameters, timeout=TIMEOUT)
        if not found:
            return None
        place, finished_at = found[0]
        return int(place) >> PLACE_BITS if order.column == "created_at" else int(finished_at)

    def _sums(
        self, sql: CountSql, walk: Walk, group_field: GroupField | None, begin: int | None, now: int
    ) -> list[StepRow]:
        statement = sql.step(walk, group_field, begin, now)
        rows = self._queries.fetch(statement.text, statement.parameters, timeout=TIMEOUT)
        if group_field is None:
            return [StepRow(None, *row) for row in rows]
        return [StepRow(group_field.key(row[:-4]), *row[-4:]) for row in rows]


def order_of(term: Term | None) -> ListOrder:
    """Return the time by which a count of this filter goes: the one that the filter bounds, best from below.

    A filter of `finishedAt` alone then reads what ended in that time, and not all that was ever requested.
    """
    created, finished = (_bounds(term, field) for field in ("createdAt", "finishedAt"))
    return ListOrder("finishedAt") if finished > created else ListOrder()


def _bounds(term: Term | None, field: str) -> int:
    """Return 2 for a field that the filter bounds from below, 1 from above only, 0 not at all."""
    operators = {
        part.operator
        for part in conjuncts_of(term)
        if isinstance(part, FieldCondition) and part.field == field and None not in part.values
    }
    return 2 if operators & _LOWER else 1 if operators & _UPPER else 0
