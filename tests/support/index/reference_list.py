"""What a filter means, row by row, without SQL; and rows and filters that Hypothesis draws."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from unittest import mock

import msgspec
from hypothesis import strategies as st

from opstream_index.filters.fields import STATUSES
from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import Conjunction, Disjunction, FieldCondition, Negation, Operator, Term
from opstream_index.lists import sql
from opstream_index.lists.plan import ListScope
from opstream_index.lists.reader import ListQuery, ListReader
from opstream_index.operation_row import OperationRow, place_of

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEGIN: Final = 1_796_000_000_000_000
TEXTS: Final = ("a", "B", "it's", '"x"', "%_", "b'; DROP TABLE operation; --", "ü", "\\", "404", "?")
MESSAGES: Final = ("disk full", "DISK FULL on é'1", "timeout after 3 s", "50% of _it_", 'say "no"', "x", "(?) OR 1=1")
KINDS: Final = ("book:print", "book:scan", "shelf:print")
TENANTS: Final = ("", "", "", "acme")
_NAMES: Final = {
    "id": "own_id",
    "resourceId": "resource_id",
    "status": "status",
    "createdAt": "created_at",
    "startAt": "start_at",
    "startedAt": "started_at",
    "finishedAt": "finished_at",
    "attempt": "attempt",
    "version": "version",
    "caller": "caller",
    "error/code": "code",
    "error/message": "message",
    "message": "message",
    "retryOf": "retry_of",
    "parent": "parent",
}


def matches(term: Term | None, row: OperationRow) -> bool:
    """Return True if a row belongs to a filter."""
    match term:
        case None:
            return True
        case Negation():
            return not matches(term.term, row)
        case Conjunction():
            return all(matches(part, row) for part in term.terms)
        case Disjunction():
            return any(matches(part, row) for part in term.terms)
        case FieldCondition():
            return _compares(term, _value(term, row))


def _value(part: FieldCondition, row: OperationRow) -> Any:
    if part.field == "kind":
        return f"{row.resource}:{row.action}"
    if part.label:
        return json.loads(row.labels or "{}").get(part.label)
    return getattr(row, _NAMES[part.field]) if getattr(row, _NAMES[part.field]) != "" else None


def _compares(part: FieldCondition, value: Any) -> bool:
    wanted = part.values[0]
    if part.operator is Operator.NE:
        return bool(value != wanted)
    if part.operator is Operator.IN or wanted is None:
        return value in part.values
    if value is None:
        return False
    if part.operator is Operator.CONTAINS:
        return _folded(str(wanted)) in _folded(value)
    return {
        Operator.EQ: value == wanted,
        Operator.GT: value > wanted,
        Operator.GE: value >= wanted,
        Operator.LT: value < wanted,
        Operator.LE: value <= wanted,
    }[part.operator]


def _folded(text: str) -> str:
    return "".join(one.lower() if one.isascii() else one for one in text)


def reference_ids(found: list[OperationRow], query: ListQuery) -> list[str]:
    """Return the ids that a list has, in its order."""
    by_creation = query.order.field == "createdAt"
    wanted = [
        one
        for one in found
        if one.tenant == query.scope.tenant
        and query.scope.caller in {None, one.caller}
        and matches(query.term, one)
        and (by_creation or one.finished_at is not None)
    ]
    wanted.sort(key=lambda one: (0 if by_creation else one.finished_at, one.place), reverse=query.order.is_descending)
    return [one.id for one in wanted]


def listed_ids(lists: ListReader, query: ListQuery, window: int) -> list[str]:
    """Return the ids of all pages of a list, each query of which reads so many rows."""
    listed: list[str] = []
    with mock.patch.object(sql, "WINDOW", window), mock.patch.object(sql, "PROBE", 2):
        for _ in range(200):
            page = lists.page(query, now=0)
            assert len(page.rows) <= query.size
            listed += [one.id for one in page.rows]
            if page.next is None:
                return listed
            query = msgspec.structs.replace(query, after=page.next)
    raise AssertionError("the list does not end")


def row(number: int, **changes: Any) -> OperationRow:
    """Return a row whose id has a number; `changes` replace its defaults."""
    values: dict[str, Any] = {
        "place": 0,
        "id": f"id-{number}",
        "own_id": f"own-{number}",
        "tenant": "",
        "caller": "",
        "resource": "book",
        "action": "print",
        "resource_id": "",
        "status": "Succeeded",
        "code": None,
        "message": None,
        "created_at": BEGIN + number,
        "start_at": None,
        "started_at": None,
        "finished_at": None,
        "updated_at": 0,
        "attempt": 1,
        "version": 1,
        "labels": None,
        "retry_of": None,
        "parent": None,
        "position": number + 1,
        "expires_at": 2**62,
        **changes,
    }
    values["place"] = values["place"] or place_of(values["created_at"], values["id"])
    return OperationRow(**values)


TIMES: Final = st.integers(BEGIN, BEGIN + 12)
_MAYBE_TEXT: Final = st.none() | st.sampled_from(TEXTS)


@st.composite
def rows(draw: st.DrawFn) -> list[OperationRow]:
    """Draw the rows of an index, of few values each, so that they meet the drawn filters."""
    found = []
    for number in range(draw(st.integers(4, 14))):
        resource, _, action = draw(st.sampled_from(KINDS)).partition(":")
        status = draw(st.sampled_from(STATUSES))
        has_ended = status in {"Succeeded", "Failed", "Canceled"}
        labels = draw(st.dictionaries(st.sampled_from(["team", "a.b/c-d"]), st.sampled_from(TEXTS), max_size=2))
        found.append(
            row(
                number,
                own_id=draw(st.sampled_from(TEXTS)),
                tenant=draw(st.sampled_from(TENANTS)),
                caller=draw(st.sampled_from(["", "ann", "bob"])),
                resource=resource,
                action=action,
                resource_id=draw(st.just("") | st.sampled_from(TEXTS)),
                status=status,
                code=draw(_MAYBE_TEXT) if status == "Failed" else None,
                message=draw(st.sampled_from(MESSAGES)) if status in {"Failed", "Running"} else None,
                created_at=draw(TIMES),
                start_at=draw(st.none() | TIMES),
                started_at=draw(st.none() | TIMES),
                finished_at=draw(TIMES) if has_ended else None,
                attempt=draw(st.integers(0, 3)),
                version=draw(st.integers(1, 3)),
                labels=json.dumps(labels) if labels else None,
                retry_of=draw(_MAYBE_TEXT),
                parent=draw(_MAYBE_TEXT),
            )
        )
    places = {one.place for one in found}
    return found if len(places) == len(found) else []


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _time(value: int) -> str:
    return (EPOCH + timedelta(microseconds=value)).isoformat()


def _comparisons(names: list[str], operators: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    name = st.sampled_from(names)
    one = st.builds("{} {} {}".format, name, st.sampled_from(operators), values)
    several = st.builds(
        lambda name, values: f"{name} in ({', '.join(values)})", name, st.lists(values, min_size=1, max_size=4)
    )
    return one | several


_TEXT: Final = st.sampled_from(TEXTS).map(_quoted)
_ORDERED: Final = ["eq", "ne", "gt", "ge", "lt", "le"]
COMPARISONS: Final = st.one_of(
    _comparisons(["id", "resourceId", "retryOf", "error/code", "label/team", "label/a.b/c-d"], ["eq", "ne"], _TEXT),
    _comparisons(["caller"], ["eq", "ne"], st.sampled_from(["'ann'", "'bob'"])),
    _comparisons(["kind"], ["eq", "ne"], st.sampled_from(KINDS).map(_quoted)),
    _comparisons(["status"], ["eq", "ne"], st.sampled_from(STATUSES).map(_quoted)),
    _comparisons(["createdAt", "startAt", "startedAt", "finishedAt"], _ORDERED, TIMES.map(_time)),
    _comparisons(["attempt", "version"], _ORDERED, st.integers(0, 3).map(str)),
    st.builds(
        "{} {} null".format,
        st.sampled_from(
            ["resourceId", "startAt", "startedAt", "finishedAt", "caller", "error/code", "retryOf", "label/team"]
        ),
        st.sampled_from(["eq", "ne"]),
    ),
    st.builds(
        "contains({}, {})".format,
        st.sampled_from(["message", "error/message"]),
        st.sampled_from(["ISK", "disk full", "50% of", "é'1", "it_", 'y "n', "(?) OR"]).map(_quoted),
    ),
)
FILTERS: Final = st.recursive(
    COMPARISONS,
    lambda terms: st.one_of(
        st.builds("({} and {})".format, terms, terms),
        st.builds("({} or {})".format, terms, terms),
        st.builds("not {}".format, terms),
        st.builds("({})".format, terms),
    ),
    max_leaves=6,
)

list_orders: Final = st.builds(ListOrder, st.sampled_from(["createdAt", "finishedAt"]), st.booleans())
scopes: Final = st.sampled_from([ListScope(), ListScope(), ListScope(), ListScope("acme"), ListScope("", "ann")])
