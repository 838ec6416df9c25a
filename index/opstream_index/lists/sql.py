"""The SQL of lists. Each value of a request is a parameter; what the text itself has are names of this module.

A list is a walk through indexes, of at most `WINDOW` rows in their order, and of those the rows for which the filter is
true. The filter has two values, true and false, as OData says of comparisons with what is absent: only `ne` is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from opstream_index.filters.fields import FIELDS, FieldType
from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import (
    Conjunction,
    Disjunction,
    FieldCondition,
    Negation,
    Operator,
    Term,
    conjuncts_of,
)
from opstream_index.operation_row import first_place

from .items import COLUMNS
from .plan import PROBE, WINDOW, Arm, ListScope, Place, Source, Walk

_MAY_BE_EMPTY: Final = frozenset({"caller", "resource_id", "code", "message", "retry_of", "parent"})
"""Columns whose empty text stands for an absent value, as NULL does."""
_KEYS: Final = {Source.OPERATIONS: "o.place", Source.LABELS: "label.place", Source.TEXTS: "search.rowid"}
"""The place of a row, in the table where a walk begins."""
_SYMBOLS: Final = {Operator.GT: ">", Operator.GE: ">=", Operator.LT: "<", Operator.LE: "<="}

Parameter = str | int


class Dialect(msgspec.Struct, frozen=True):
    """How a database writes what others write otherwise."""

    mark: str
    """What stands for a parameter."""
    indexed_by: str
    """Holds a query to the index whose name is in `{}`; empty if the database can't be held to one."""
    contains: str
    """True if the text in `{}` has the parameter in it, with A to Z as a to z."""
    label: str
    """The value of the label whose key is the parameter."""
    label_path: str
    """That parameter, for a key in `{}`."""
    join: str
    """Reads its left side first, where that can be asked for."""
    has_texts: bool
    """True if its index of texts is in the order of places."""


SQLITE: Final = Dialect(
    mark="?",
    indexed_by=" INDEXED BY {}",
    contains="instr(lower({}), ?) > 0",
    label="json_extract(w.labels, ?)",
    label_path='$."{}"',
    join="CROSS JOIN",
    has_texts=True,
)
POSTGRESQL: Final = Dialect(
    mark="%s",
    indexed_by="",
    contains='strpos(lower({} COLLATE "C"), ?) > 0',
    label="(w.labels::jsonb ->> ?)",
    label_path="{}",
    join="CROSS JOIN",
    has_texts=False,
)


class Statement(msgspec.Struct, frozen=True):
    """A statement with its parameters."""

    text: str
    parameters: tuple[Parameter, ...]


class ListSql:
    """The statements of one list.

    Args:
        dialect: of the database.
        term: the checked filter; None for none.
        order: of the rows.
        scope: whose operations may be shown.
        after: the place after which the page begins; None for the first page.
    """

    def __init__(
        self, dialect: Dialect, term: Term | None, order: ListOrder, scope: ListScope, after: Place | None
    ) -> None:
        self._dialect = dialect
        self._term = term
        self._order = order
        self._scope = scope
        self._after = after

    def probe(self, walk: Walk) -> Statement:
        """Return the statement of the place, or time, of the walk's entry number `PROBE`; no row if it has fewer.

        The further away it is, the fewer entries there are. Of a walk that is out of order only whether there is a row
        says something.
        """
        parts, parameters = [], list[Parameter]()
        for arm in walk.arms:
            where = self._where(arm, parameters)
            if self._by_place or walk.is_in_order:
                self._bound(_KEYS[arm.source], where, parameters)
            key = _KEYS[arm.source] if self._by_place or not walk.is_in_order else "o.finished_at"
            parts.append(f"SELECT {key} AS found FROM {self._table(arm)} WHERE {' AND '.join(where)}")
        ordered = f"ORDER BY found {self._direction}" if walk.is_in_order else ""
        return self._statement(f"{' UNION ALL '.join(parts)} {ordered} LIMIT 1 OFFSET {PROBE - 1}", parameters)

    def page(self, walk: Walk, size: int, now: int) -> Statement:
        """Return the statement of the rows of a page, in the order of `COLUMNS`.

        Args:
            walk: how to find them.
            size: of the page; one more is read, to see whether there is a next page.
            now: microseconds since 1970 (UTC); an operation whose retention is over then is left out.
        """
        parameters = list[Parameter]()
        window = self._window(walk, parameters)
        where = self._visible(now, parameters)
        columns = ", ".join(f"w.{column}" for column in COLUMNS)
        # No ORDER BY out here: SQLite would read the whole window to sort it again. `reader` checks the order.
        return self._statement(
            f"SELECT {columns} FROM ({window} LIMIT {WINDOW}) AS w WHERE {' AND '.join(where)} LIMIT {size + 1}",
            parameters,
        )

    def end_of_window(self, walk: Walk, rows: int | None = None) -> Statement:
        """Return the statement of the place at which a page that is not full goes on; no row if nothing is left.

        Args:
            walk: how to find the rows.
            rows: of the window; None for `WINDOW`.
        """
        parameters = list[Parameter]()
        window = self._window(walk, parameters, columns=("place", "finished_at"))
        return self._statement(f"{window} LIMIT 1 OFFSET {(rows or WINDOW) - 1}", parameters)

    @property
    def _direction(self) -> str:
        return "DESC" if self._order.is_descending else "ASC"

    @property
    def _by_place(self) -> bool:
        return self._order.column == "created_at"

    def _visible(self, now: int, parameters: list[Parameter]) -> list[str]:
        """Return the conditions of the rows of a window that may be shown, and for which the filter is true."""
        where = ["w.expires_at > ?"]
        parameters.append(now)
        if self._scope.caller is not None:
            where.append("w.own_id <> w.id")  # what was recorded without authentication belongs to no caller
        if self._term is not None:
            where.append(self._condition(self._term, parameters))
        return where

    def _window(self, walk: Walk, parameters: list[Parameter], columns: Sequence[str] = COLUMNS) -> str:
        direction = self._direction
        ordered = f"place {direction}" if self._by_place else f"finished_at {direction}, place {direction}"
        return f"{self._rows(walk, parameters, columns)} ORDER BY {ordered}"

    def _rows(self, walk: Walk, parameters: list[Parameter], columns: Sequence[str]) -> str:
        parts = []
        for arm in walk.arms:
            where = self._where(arm, parameters)
            if not self._by_place:
                where.append("o.finished_at IS NOT NULL")
            self._bound(_KEYS[arm.source] if self._by_place else "o.place", where, parameters)
            table = self._table(arm)
            if arm.source is not Source.OPERATIONS:
                table += f" {self._dialect.join} operation AS o"
                where.append(f"o.place = {_KEYS[arm.source]} AND o.tenant = ?")
                parameters.append(self._scope.tenant)
            selected = ", ".join(_selected(column, arm, by_place=self._by_place) for column in columns)
            parts.append(f"SELECT {selected} FROM {table} WHERE {' AND '.join(where)}")
        return " UNION ALL ".join(parts)

    def _table(self, arm: Arm) -> str:
        if arm.source is Source.LABELS:
            return "label"
        if arm.source is Source.TEXTS:
            return "search"
        return f"operation AS o{self._dialect.indexed_by.format(arm.index)}"

    def _where(self, arm: Arm, parameters: list[Parameter]) -> list[str]:
        """Return the conditions with which an arm begins: of the tenant, and of its equal values."""
        if arm.source is Source.TEXTS:
            parameters.append('"' + arm.equal[0][1].replace('"', '""') + '"')
            return ["search MATCH ?"]
        short = "label" if arm.source is Source.LABELS else "o"
        where = [f"{short}.tenant = ?", *(f"{short}.{column} = ?" for column, _ in arm.equal)]
        parameters += (self._scope.tenant, *(value for _, value in arm.equal))
        return [*where, *(f"o.{predicate}" for predicate in arm.predicate)]

    def _bound(self, place: str, where: list[str], parameters: list[Parameter]) -> None:
        """Add what the filter and the cursor say of the order."""
        for part in conjuncts_of(self._term):
            if isinstance(part, FieldCondition) and part.field == self._order.field and isinstance(part.values[0], int):
                for symbol, value in _range(part.operator, part.values[0]):
                    where.append(f"{place} {symbol} ?" if self._by_place else f"o.finished_at {symbol} ?")
                    parameters.append(first_place(value) if self._by_place else value)
        if self._after is None:
            return
        symbol = "<" if self._order.is_descending else ">"
        if self._by_place:
            where.append(f"{place} {symbol} ?")
            parameters.append(self._after.place)
            return
        where.append(f"o.finished_at {symbol}= ? AND (o.finished_at, {place}) {symbol} (?, ?)")
        parameters += (self._after.finished_at, self._after.finished_at, self._after.place)

    def _condition(self, term: Term, parameters: list[Parameter]) -> str:
        if isinstance(term, Negation):
            return f"NOT {self._condition(term.term, parameters)}"
        if isinstance(term, Conjunction | Disjunction):
            word = " AND " if isinstance(term, Conjunction) else " OR "
            return "(" + word.join([self._condition(part, parameters) for part in term.terms]) + ")"
        return self._comparison(term, parameters)

    def _comparison(self, part: FieldCondition, parameters: list[Parameter]) -> str:
        field, values = FIELDS[part.field], [value for value in part.values if value is not None]
        if field.type is FieldType.KIND:
            found = " OR ".join("(w.resource = ? AND w.action = ?)" for _ in values)
            for value in values:
                resource, _, action = str(value).partition(":")
                parameters += (resource, action)
            return f"{'NOT ' if part.operator is Operator.NE else ''}({found})"
        if part.label:
            column = self._dialect.label
            given: list[Parameter] = [self._dialect.label_path.format(part.label)]
        else:
            column = f"w.{field.column}"
            given = []
        if not values:
            parameters += given
            return f"({column} IS {'NOT ' if part.operator is Operator.NE else ''}NULL)"
        if part.operator is Operator.CONTAINS:
            parameters.append(_folded(str(values[0])))
            return f"({column} IS NOT NULL AND {self._dialect.contains.format(column)})"
        parameters += given
        if part.operator is Operator.NE:
            parameters += (*given, values[0])
            return f"({column} IS NULL OR {column} <> ?)"
        parameters += (*given, *values)
        if part.operator in {Operator.EQ, Operator.IN}:
            return f"({column} IS NOT NULL AND {column} IN ({', '.join('?' * len(values))}))"
        return f"({column} IS NOT NULL AND {column} {_SYMBOLS[part.operator]} ?)"

    def _statement(self, text: str, parameters: list[Parameter]) -> Statement:
        return Statement(text.replace("?", self._dialect.mark), tuple(parameters))


def _range(operator: Operator, value: int) -> tuple[tuple[str, int], ...]:
    """Return the bounds of a comparison of times, each with `>=` or `<`, which also hold for places."""
    return {
        Operator.EQ: ((">=", value), ("<", value + 1)),
        Operator.GE: ((">=", value),),
        Operator.GT: ((">=", value + 1),),
        Operator.LT: (("<", value),),
        Operator.LE: (("<", value + 1),),
    }.get(operator, ())


def _selected(column: str, arm: Arm, *, by_place: bool) -> str:
    if column == "place" and by_place:
        return f"{_KEYS[arm.source]} AS place"
    if column in _MAY_BE_EMPTY:
        return f"nullif(o.{column}, '') AS {column}"
    return f"o.{column} AS {column}"


def _folded(text: str) -> str:
    """Return a text with A to Z as a to z, and everything else as it is: what both databases do with a row's text."""
    return "".join(chr(ord(one) + 32) if "A" <= one <= "Z" else one for one in text)
