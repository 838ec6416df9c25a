"""The SQL of counts: the walks and conditions of lists, with sums in place of rows."""

from __future__ import annotations

from typing import Final

from opstream_index.filters.fields import FIELDS, FieldType
from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import Conjunction, Disjunction, FieldCondition, Negation, Term
from opstream_index.lists.plan import ListScope, Place, Walk
from opstream_index.lists.sql import Dialect, ListSql, Parameter, Statement
from opstream_index.operation_row import first_place

from .group_field import GroupField

_ALWAYS: Final = ("status", "started_at", "finished_at", "expires_at")
_TOOK: Final = "w.finished_at - w.started_at"
_DIGITS: Final = f"CAST({_TOOK} AS TEXT)"
_BUCKET: Final = (
    f"CASE WHEN w.finished_at IS NULL OR w.started_at IS NULL THEN NULL WHEN {_TOOK} < 10 THEN 0 "
    f"ELSE length({_DIGITS}) * 100 + CAST(substr({_DIGITS}, 1, 2) AS INTEGER) END"
)
"""As `tally.duration_bucket`. A clock that went back gives a negative duration, which counts as none."""


class CountSql(ListSql):
    """The statements of one step of a count. It goes on from the newest to the oldest, by a time.

    Args:
        dialect: of the database.
        term: the checked filter; None for none.
        order: `createdAt desc` or `finishedAt desc`: the time by which the steps go.
        scope: whose operations count.
        end: only operations before this time, in microseconds since 1970 (UTC); None for all.
    """

    def __init__(
        self, dialect: Dialect, term: Term | None, order: ListOrder, scope: ListScope, end: int | None
    ) -> None:
        by_place = order.column == "created_at"
        place = None if end is None else Place(first_place(end)) if by_place else Place(_BEFORE_ALL, end)
        super().__init__(dialect, term, order, scope, place)
        self._begin: int | None = None

    def step(self, walk: Walk, group_field: GroupField | None, begin: int | None, now: int) -> Statement:
        """Return the statement of the sums of a step: the columns of the group, status, bucket, number, longest.

        Args:
            walk: how to find the rows.
            group_field: the field by whose values they are counted; None for none.
            begin: only operations of this time or later, in microseconds since 1970 (UTC); None for all.
            now: microseconds since 1970 (UTC); an operation whose retention is over then is left out.
        """
        parameters = list[Parameter]()
        keys = self._keys(group_field, parameters)
        self._begin = begin
        rows = self._rows(walk, parameters, sorted(self._needed(group_field)))
        where = self._visible(now, parameters)
        numbers = ", ".join(str(number + 1) for number in range(len(keys) + 2))
        return self._statement(
            f"SELECT {''.join(f'{key}, ' for key in keys)}w.status, {_BUCKET}, count(*), max({_TOOK}) "
            f"FROM ({rows}) AS w WHERE {' AND '.join(where)} GROUP BY {numbers}",
            parameters,
        )

    def _bound(self, place: str, where: list[str], parameters: list[Parameter]) -> None:
        super()._bound(place, where, parameters)
        if self._begin is not None:
            where.append(f"{place} >= ?" if self._by_place else "o.finished_at >= ?")
            parameters.append(first_place(self._begin) if self._by_place else self._begin)

    def _keys(self, group_field: GroupField | None, parameters: list[Parameter]) -> list[str]:
        if group_field is None:
            return []
        if not group_field.label:
            return [f"w.{column}" for column in group_field.columns]
        parameters.append(self._dialect.label_path.format(group_field.label))
        return [self._dialect.label]

    def _needed(self, group_field: GroupField | None) -> set[str]:
        """Return the columns that are read of each row."""
        needed = {*_ALWAYS, *_columns_of(self._term)}
        if self._scope.caller is not None:
            needed |= {"id", "own_id"}
        if group_field is not None:
            needed |= {*group_field.columns, *(["labels"] if group_field.label else [])}
        return needed


_BEFORE_ALL: Final = -(2**63)
"""A place before all places: with it a time stands for its first moment."""


def _columns_of(term: Term | None) -> set[str]:
    match term:
        case None:
            return set()
        case Negation():
            return _columns_of(term.term)
        case Conjunction() | Disjunction():
            return set().union(*map(_columns_of, term.terms))
        case FieldCondition():
            field = FIELDS[term.field]
            if field.type is FieldType.KIND:
                return {"resource", "action"}
            return {"labels" if term.label else field.column}
