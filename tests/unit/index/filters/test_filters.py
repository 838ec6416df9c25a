"""Filters: what they mean as a tree, and what is refused, where, and with what advice."""

from __future__ import annotations

import pytest

from opstream_index.filters.checks import check_indexed, parse_filter
from opstream_index.filters.errors import FilterRefused
from opstream_index.filters.fields import FIELD_NAMES
from opstream_index.filters.parser import MAX_COMPARISONS, MAX_DEPTH, MAX_VALUES
from opstream_index.filters.syntax import Conjunction, Disjunction, FieldCondition, Negation, Operator, Term
from opstream_index.filters.tokens import MAX_FILTER_LENGTH, MAX_TEXT_LENGTH

pytestmark = pytest.mark.unit

A = FieldCondition("attempt", Operator.EQ, (1,))
B = FieldCondition("attempt", Operator.EQ, (2,))
C = FieldCondition("attempt", Operator.EQ, (3,))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("attempt eq 1 or attempt eq 2 and attempt eq 3", Disjunction((A, Conjunction((B, C))))),
        ("not attempt eq 1 and attempt eq 2", Conjunction((Negation(A), B))),
        ("(attempt eq 1 or attempt eq 2) and attempt eq 3", Conjunction((Disjunction((A, B)), C))),
        ("not (attempt eq 1 or attempt eq 2)", Negation(Disjunction((A, B)))),
        ("attempt eq 1 and attempt eq 2 and attempt eq 3", Conjunction((A, B, C))),
        ("not not((attempt eq 1))", Negation(Negation(A))),
    ],
)
def test_precedence(text: str, tree: Term) -> None:
    """It is that of Azure's guidelines: `not`, then `and`, then `or`."""
    assert parse_filter(text) == tree


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("resourceId eq 'it''s'", FieldCondition("resourceId", Operator.EQ, ("it's",))),
        ("resourceId eq ''''", FieldCondition("resourceId", Operator.EQ, ("'",))),
        ("error/code in (503, 'Timeout', '503')", FieldCondition("error/code", Operator.IN, ("503", "Timeout"))),
        ("label/a.b/c-d_e eq 'x'", FieldCondition("label", Operator.EQ, ("x",), "a.b/c-d_e")),
        ("contains(message,'a or b')", FieldCondition("message", Operator.CONTAINS, ("a or b",))),
        ("createdAt ge 1970-01-01T01:00:00.000001+01:00", FieldCondition("createdAt", Operator.GE, (1,))),
        ("finishedAt eq null", FieldCondition("finishedAt", Operator.EQ, (None,))),
        ("attempt gt -1", FieldCondition("attempt", Operator.GT, (-1,))),
    ],
)
def test_values(text: str, condition: FieldCondition) -> None:
    """Values become what the index has."""
    assert parse_filter(text) == condition


REFUSED = [
    ("", 0, "leave the parameter out"),
    ("nonsense eq 1", 1, ", ".join(FIELD_NAMES)),
    ("status eq 'Failed' and kinds eq 'a:b'", 24, "label/KEY"),
    ("status gt 'Failed'", 1, "it takes: eq, ne, in"),
    ("contains(status, 'abc')", 10, "it takes: eq, ne, in"),
    ("message eq 'abc'", 1, "it takes: contains"),
    ("contains(message, 'ab')", 19, "at least 3 characters"),
    ("status eq 'failed'", 11, "'NotStarted'"),
    ('status eq "Failed"', 11, "single quotes"),
    ("status eq 'Failed", 11, "no end"),
    ("status = 'Failed'", 8, "neither a name"),
    ("status like 'F'", 8, "eq, ne, gt, ge, lt, le, in"),
    ("status eq", 10, "the filter ends here"),
    ("status eq 'Failed' attempt eq 1", 20, "'and', 'or' or the end"),
    ("(status eq 'Failed'", 20, "')'"),
    ("status in 'Failed'", 11, "'(' and the values"),
    ("status in ()", 12, "a value"),
    ("status in ('Failed',)", 21, "a value"),
    ("kind eq 'book'", 9, "RESOURCE:ACTION"),
    ("kind eq null", 9, "may be absent"),
    ("resourceId in (null)", 16, "eq and ne"),
    ("resourceId eq ''", 15, "a text"),
    ("createdAt gt 2026-11-30", 14, "a time with a time zone"),
    ("createdAt gt 2026-13-30T08:00:00Z", 14, "a time with a time zone"),
    ("createdAt gt 5", 14, "a time with a time zone"),
    ("attempt eq '1'", 12, "a whole number"),
    ("attempt eq 99999999999999999999", 12, "a whole number"),
    ("attempt eq 1.5", 12, "neither a name"),
    ("label/Team eq 'x'", 1, "a key of a-z"),
    ("label eq 'x'", 1, "names no label"),
    (f"label/{'a' * 64} eq 'x'", 1, "names no label"),
    ("resourceId eq 'a\0b'", 15, "can be printed"),
    ("resourceId eq 'a' --", 19, "neither a name"),
    ("resourceId eq 'a'; DROP TABLE operation", 18, "neither a name"),
    (f"resourceId eq '{'x' * (MAX_TEXT_LENGTH + 1)}'", 15, "512 are allowed"),
    ("x" * (MAX_FILTER_LENGTH + 1), 0, "2048 are allowed"),
    ("(" * (MAX_DEPTH + 1), MAX_DEPTH + 1, "deeper than 16"),
    ("not " * (MAX_DEPTH + 1), 4 * MAX_DEPTH + 1, "deeper than 16"),
    (" or ".join(["attempt eq 1"] * (MAX_COMPARISONS + 1)), 16 * MAX_COMPARISONS + 1, "more than 64 comparisons"),
    (f"attempt in ({', '.join(['1'] * (MAX_VALUES + 1))})", 12, "more than 100 values"),
]


@pytest.mark.parametrize(("text", "position", "advice"), REFUSED)
def test_what_is_refused(text: str, position: int, advice: str) -> None:
    """With the position of the first wrong character, and what is allowed there."""
    with pytest.raises(FilterRefused) as caught:
        parse_filter(text)
    assert caught.value.position == position
    assert advice in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_bounds_are_within() -> None:
    """What is as large as allowed is a filter."""
    for text in (
        "(" * MAX_DEPTH + "attempt eq 1" + ")" * MAX_DEPTH,
        " or ".join(["attempt eq 1"] * MAX_COMPARISONS),
        f"attempt in ({', '.join(map(str, range(MAX_VALUES)))})",
        f"resourceId eq '{'x' * MAX_TEXT_LENGTH}'",
    ):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("attempt gt 3", "createdAt"),
        ("status eq 'Failed' or attempt gt 3", "createdAt"),
        ("not status eq 'Failed'", "createdAt"),
        ("status ne 'Failed'", "createdAt"),
        ("resourceId eq null", "createdAt"),
        ("finishedAt gt 2026-11-30T08:00:00Z", "createdAt"),
        ("createdAt gt 2026-11-30T08:00:00Z", "finishedAt"),
        ("startedAt gt 2026-11-30T08:00:00Z", "createdAt"),
        ("resourceId in ('1','2','3','4','5','6','7','8','9')", "createdAt"),
    ],
)
def test_a_filter_that_no_index_serves_is_refused(text: str, order: str) -> None:
    """The message names the fields that one finds; with a condition of one of them it is taken."""
    with pytest.raises(FilterRefused) as caught:
        check_indexed(parse_filter(text), order)
    assert "kind, resourceId, status" in str(caught.value)
    assert f"a comparison of {order}" in str(caught.value)
    assert len(str(caught.value)) < 500
    check_indexed(parse_filter(f"({text}) and label/team eq 'a'"), order)
