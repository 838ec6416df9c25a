"""Checks of a filter against the table of fields: names, operators, values. An index is asked what comes out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from .errors import FilterRefused, shown
from .fields import FIELD_NAMES, FIELDS, INDEXED_NAMES, LABEL, LABEL_KEY, STATUSES, FieldType, ListField
from .parser import parse_tree
from .syntax import Comparison, FieldCondition, Operator, Term, conjuncts_of
from .tokens import Token, TokenType

MIN_CONTAINED: Final = 3
"""Characters of the text of a `contains`, at least."""
MAX_ARMS: Final = 8
"""Values of an `in` that an index finds; a longer one only narrows what another conjunct finds."""

_ORDERING: Final = frozenset({Operator.GT, Operator.GE, Operator.LT, Operator.LE})
_FINDING: Final = frozenset({Operator.EQ, Operator.IN})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KIND: Final = re.compile(r"[a-z0-9-]{1,40}:[a-z0-9-]{1,40}")
_MAX_NUMBER: Final = 2**31 - 1


def parse_filter(text: str) -> Term:
    """Return the checked tree of a filter.

    Raises:
        FilterRefused: it is no filter; it names an unknown field, an operator that its field does not take, or a value
            of another type. The message names what is allowed, and the position.
    """
    if not text.strip():
        raise FilterRefused("it is empty: leave the parameter out to get every operation")
    return parse_tree(text, _condition)


def microseconds_of(time: datetime) -> int:
    """Return a time as the index has it: microseconds since 1970 (UTC)."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def check_indexed(term: Term | None, order: str) -> None:
    """Refuse a filter of which no conjunct is found by an index: the list would read every row.

    Args:
        term: the checked filter; None for none, which is served by the order's own index.
        order: the field by which the list is ordered.

    Raises:
        FilterRefused: the message names the fields that an index finds.
    """
    if term is None or any(is_found_by_index(part, order) for part in conjuncts_of(term)):
        return
    names = ", ".join(name for name in INDEXED_NAMES if name not in {"createdAt", "finishedAt"} or name == order)
    raise FilterRefused(
        f"it needs one condition, joined by 'and', that an index finds: eq or in (at most {MAX_ARMS} values) of one of "
        f"these fields, a comparison of {order}, by which the list is ordered, or contains: {names}"
    )


def is_found_by_index(term: Term, order: str) -> bool:
    """Return True if an index finds the rows for which a term is true, in the order of a field."""
    if not isinstance(term, FieldCondition) or None in term.values:
        return False
    field = FIELDS[term.field]
    if field.type is FieldType.TIME:
        return term.field == order and term.operator in {*_ORDERING, Operator.EQ}
    is_narrow = term.operator is Operator.CONTAINS or term.operator in _FINDING
    return field.is_indexed and is_narrow and len(term.values) <= MAX_ARMS


def _condition(comparison: Comparison) -> FieldCondition:
    name, _, label = comparison.field.partition("/")
    if name != LABEL:
        name, label = comparison.field, ""
    elif LABEL_KEY.fullmatch(label) is None:
        raise FilterRefused(
            f"{shown(comparison.field)} names no label: write label/ and a key of a-z, 0-9, '-', '_', '.' and '/' that "
            "begins with a letter",
            comparison.position,
        )
    field = FIELDS.get(name)
    if field is None:
        raise FilterRefused(
            f"there is no field {shown(comparison.field)}; these are: {', '.join(FIELD_NAMES)}", comparison.position
        )
    if comparison.operator not in field.operators:
        allowed = ", ".join(operator for operator in Operator if operator in field.operators)
        raise FilterRefused(
            f"the field {name} does not take {comparison.operator}; it takes: {allowed}", comparison.position
        )
    values = tuple(_value(field, name, token, comparison.operator) for token in comparison.values)
    return FieldCondition(name, comparison.operator, tuple(dict.fromkeys(values)), label)


def _value(field: ListField, name: str, token: Token, operator: Operator) -> str | int | None:
    if token.type is TokenType.NAME:  # null
        if not field.may_miss or operator not in {Operator.EQ, Operator.NE}:
            raise FilterRefused(
                f"null is compared by eq and ne, with what may be absent; {name} is not", token.position
            )
        return None
    value = _typed(field.type, token)
    if value is None:
        raise FilterRefused(f"the value of {name} must be {field.type.value}", token.position)
    return value


def _typed(kind: FieldType, token: Token) -> str | int | None:
    """Return a value as it is stored; None if it is of another type."""
    text = token.value
    if kind is FieldType.TIME:
        return _time(token)
    if kind is FieldType.NUMBER:
        return int(text) if token.type is TokenType.NUMBER and _is_small(text) else None
    if kind is FieldType.CODE and token.type is TokenType.NUMBER:
        return str(int(text)) if _is_small(text) else None
    if token.type is not TokenType.TEXT:
        return None
    fits = {
        FieldType.TEXT: bool(text),
        FieldType.CODE: bool(text),
        FieldType.KIND: _KIND.fullmatch(text) is not None,
        FieldType.STATUS: text in STATUSES,
        FieldType.MESSAGE: len(text) >= MIN_CONTAINED,
    }
    return text if fits[kind] else None


def _is_small(text: str) -> bool:
    return len(text) <= 11 and -_MAX_NUMBER <= int(text) <= _MAX_NUMBER


def _time(token: Token) -> int | None:
    if token.type is TokenType.NUMBER:
        return None
    try:
        time = datetime.fromisoformat(token.value)
    except ValueError:
        return None
    try:
        return None if time.tzinfo is None else microseconds_of(time)
    except OverflowError:
        return None
