"""The tree of a filter: what the parser returns, with names and values as they are written; and the checked one."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .tokens import Token


class Operator(StrEnum):
    """What compares a field with values."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GE = "ge"
    LT = "lt"
    LE = "le"
    IN = "in"
    CONTAINS = "contains"


class Comparison(msgspec.Struct, frozen=True):
    """A field, an operator, and values: one, or for `in` several."""

    field: str
    operator: Operator
    values: tuple[Token, ...]
    position: int
    """Of the field's name, from 1."""


class FieldCondition(msgspec.Struct, frozen=True, tag=True):
    """A comparison whose field and values have been checked."""

    field: str
    """Its name in `FIELDS`."""
    operator: Operator
    values: tuple[str | int | None, ...]
    """As they are stored: times are microseconds since 1970 (UTC); None for `null`."""
    label: str = ""
    """The key, if the field is a label."""


class Negation(msgspec.Struct, frozen=True, tag=True):
    """True where its term is false."""

    term: Term


class Conjunction(msgspec.Struct, frozen=True, tag=True):
    """True where all of its terms are true."""

    terms: tuple[Term, ...]


class Disjunction(msgspec.Struct, frozen=True, tag=True):
    """True where one of its terms is true."""

    terms: tuple[Term, ...]


Term = FieldCondition | Negation | Conjunction | Disjunction
"""A checked tree."""


def conjuncts_of(term: Term | None) -> tuple[Term, ...]:
    """Return the terms that must all be true for the whole to be true."""
    if term is None:
        return ()
    if isinstance(term, Conjunction):
        return tuple(found for part in term.terms for found in conjuncts_of(part))
    return (term,)
