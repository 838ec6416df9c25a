"""Which index finds the rows of a list, in their order: an arm for each value, whose rows are merged. Pure.

Every index begins with the tenant. A caller that sees its own operations only is always served by the index of callers:
by any other one, the time of an answer would say how many operations of others there are.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Final

import msgspec

from opstream_index.filters.checks import is_found_by_index
from opstream_index.filters.fields import STATUSES
from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import FieldCondition, Operator, Term, conjuncts_of

WINDOW: Final = 2_000
"""Rows that one query reads, at most. A page that is not full then has a cursor that goes on there, or reads more."""
PROBE: Final = 1_000
"""Entries of an index that are looked at, at most, to see how far apart they are."""

_DENSE: Final = "Succeeded"
"""The status that the indexes of statuses leave out: nearly all operations end so."""
_WITH_TEXT: Final = ("Failed", "Running", "NotStarted")
"""Statuses of operations that can have a message: that of an error, or what the action reported."""
_ENDED: Final = "finished_at IS NOT NULL"
_NOT_DENSE: Final = f"status <> '{_DENSE}'"
_NARROW: Final = {
    "resourceId": ("operation_resource_id", "resource_id", "resource_id <> ''"),
    "error/code": ("operation_code", "code", "code IS NOT NULL"),
    "caller": ("operation_caller", "caller", "caller <> ''"),
}
"""Index, column and the predicate of the index, by fields."""


class ListScope(msgspec.Struct, frozen=True):
    """Whose operations a list may show."""

    tenant: str = ""
    caller: str | None = None
    """Only those that this subject has begun; None for all of the tenant."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a row is in an order."""

    place: int
    """Of the row (`operation_row.place_of`), which is the order of `createdAt`."""
    finished_at: int = 0
    """Microseconds since 1970 (UTC); 0 in a list that is ordered by `createdAt`."""


class Source(Enum):
    """Where a walk begins."""

    OPERATIONS = "operation"
    LABELS = "label"
    TEXTS = "search"


class Arm(msgspec.Struct, frozen=True):
    """One walk: equal values of the first columns, in the order of the last."""

    equal: tuple[tuple[str, str], ...]
    """Columns after the tenant, with their values; of `TEXTS` the text alone."""
    index: str = ""
    """The name of the index of `OPERATIONS`."""
    predicate: tuple[str, ...] = ()
    """Conditions of a partial index, as the index has them, so that the database sees that it fits."""
    source: Source = Source.OPERATIONS


class Walk(msgspec.Struct, frozen=True):
    """The arms that together find every row for which a filter can be true."""

    arms: tuple[Arm, ...]
    is_in_order: bool
    """False if the rows have to be sorted, which only a narrow one may."""


def candidates(term: Term | None, order: ListOrder, scope: ListScope, *, has_texts: bool = False) -> tuple[Walk, ...]:
    """Return the walks that find the rows of a list, of which each alone suffices; the last one is in order.

    Args:
        term: the checked filter; None for none.
        order: of the list.
        scope: whose operations may be shown.
        has_texts: True for a database whose index of texts is in the order of `createdAt`.
    """
    created = order.field == "createdAt"
    if scope.caller is not None:
        return (Walk((_caller_arm(scope.caller, created=created),), is_in_order=True),)
    conditions = [part for part in conjuncts_of(term) if isinstance(part, FieldCondition)]
    finders = [part for part in conditions if is_found_by_index(part, order.field)]
    found = [_label_walk(part, created=created) for part in finders if part.label]
    for field in ("resourceId", "error/code", "caller"):
        found += [_walk(part, created=created) for part in finders if part.field == field]
    statuses = [part for part in finders if part.field == "status"]
    among = {str(value) for value in statuses[0].values} if statuses else STATUSES
    found += [_kind_walk(part, among, created=created) for part in finders if part.field == "kind"]
    for part in statuses:
        if _DENSE not in part.values:
            arms = tuple(_status_arm(str(status), created=created) for status in part.values)
            # By `finishedAt` those of `operation_status_finished` are in order, too.
            found.append(Walk(arms, is_in_order=True))
    for part in conditions:
        if part.operator is Operator.CONTAINS:
            found.append(_text_walk(str(part.values[0]), scope, has_texts=has_texts, created=created))
    if created:
        return (*found, Walk((Arm((), "operation_tenant"),), is_in_order=True))
    return (*found, Walk((Arm((), "operation_finished", (_ENDED,)),), is_in_order=True))


def _label_walk(part: FieldCondition, *, created: bool) -> Walk:
    values = (str(value) for value in part.values)
    arms = tuple(Arm((("key", part.label), ("value", value)), source=Source.LABELS) for value in values)
    return Walk(arms, is_in_order=created)


def _walk(part: FieldCondition, *, created: bool) -> Walk:
    index, column, predicate = _NARROW[part.field]
    arms = tuple(Arm(((column, str(value)),), index, (predicate,)) for value in part.values)
    return Walk(arms, is_in_order=created)


def _status_arm(status: str, *, created: bool) -> Arm:
    if created:
        return Arm((("status", status),), "operation_status", (_NOT_DENSE,))
    return Arm((("status", status),), "operation_status_finished", (_ENDED, _NOT_DENSE))


def _kind_walk(part: FieldCondition, statuses: Collection[str], *, created: bool) -> Walk:
    arms = []
    for value in part.values:
        resource, _, action = str(value).partition(":")
        for status in STATUSES:
            if status in statuses:
                equal = (("resource", resource), ("action", action), ("status", status))
                arms.append(Arm(equal, "operation_kind"))
    return Walk(tuple(arms), is_in_order=created)


def _text_walk(text: str, scope: ListScope, *, has_texts: bool, created: bool) -> Walk:
    """Return the walk to a text: through the index of texts, or through all operations that can have one.

    The index of texts is not divided by tenants. Only the operator's own callers may notice what others have in it.
    """
    if has_texts and not scope.tenant:
        return Walk((Arm((("search", text),), source=Source.TEXTS),), is_in_order=created)
    return Walk(tuple(_status_arm(status, created=created) for status in _WITH_TEXT), is_in_order=True)


def _caller_arm(caller: str, *, created: bool) -> Arm:
    equal = (("caller", caller),)
    if created:
        return Arm(equal, "operation_caller", ("caller <> ''",))
    return Arm(equal, "operation_caller_finished", (_ENDED, "caller <> ''"))
