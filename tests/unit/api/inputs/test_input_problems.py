"""What is wrong with a refused input: found without holding the event loop, and the same as the schema says."""

from __future__ import annotations

import enum
import time
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.inputs.input_problems import LISTED_UP_TO, InputProblems
from opstream_runner.authoring.type_schema import announced_schema
from opstream_schemas.action_types.schema_engine import compile_schema, validated_part
from opstream_schemas.status_monitor import ErrorDetail
from opstream_schemas.text import MAX_NESTING

pytestmark = pytest.mark.unit

BOUND = 0.25
"""Seconds of CPU; a fair share of the event loop is much less, and the faults took from one second to for ever."""
MANY = 80_000

INTEGERS = {"type": "array", "items": {"type": "integer"}}


class Leaf(msgspec.Struct, tag="leaf", forbid_unknown_fields=True):
    """An end of a tree."""

    size: int


class Fork(msgspec.Struct, tag="fork", forbid_unknown_fields=True):
    """A node with two branches."""

    left: Leaf | Fork | None = None
    right: Leaf | Fork | None = None
    size: int = 0


class Numbered(msgspec.Struct, tag=1, tag_field="number"):
    """A struct whose tag is a number."""

    a: str


class Mixed(msgspec.Struct):
    """Unions of every kind that msgspec knows."""

    a: int | str | None = None
    b: Annotated[int, msgspec.Meta(ge=3)] | list[Leaf | None] | None = None
    c: float | int | bool = 0
    d: dict[str, int | list[int]] | Annotated[str, msgspec.Meta(min_length=2)] = ""
    e: Leaf | Fork | int = 0


def schema_of(type_: Any) -> dict[str, Any]:
    """Return the schema of a type, as actions announce it."""
    return msgspec.json.schema(type_)


def timed(schema: dict[str, Any], value: Any) -> list[ErrorDetail]:
    """Return the problems of a refused value, which have to be found in bounded time."""
    assert not compile_schema(schema).is_valid(value)
    problems = InputProblems(schema)
    before = time.thread_time()
    found = problems.find(value)
    assert time.thread_time() - before < BOUND
    return found


def forks(depth: int, end: Any) -> Any:
    """Return nested forks around an end."""
    for _ in range(depth):
        end = {"type": "fork", "right": end}
    return end


@pytest.mark.parametrize(
    ("schema", "value", "target", "message"),
    [
        (INTEGERS, ["a"] * MANY, "[0]", 'the value is not of type "integer"'),
        ({"anyOf": [INTEGERS, {"type": "null"}]}, ["a"] * MANY, "[0]", 'the value is not of type "integer"'),
        ({"oneOf": [INTEGERS, {"type": "null"}]}, ["a"] * MANY, "[0]", 'the value is not of type "integer"'),
        (
            {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
            [1, *["a"] * MANY],
            "[1]",
            "the value is not of type integer or null",
        ),
        (
            {"type": "array", "items": {"type": "object", "required": ["a", "b", "c", "d"]}},
            [{}] * MANY,
            "[0].a",
            '"a" is a required property',
        ),
        (
            {"anyOf": [INTEGERS, {"type": "array", "items": {"type": "boolean"}}]},
            ["a"] * MANY,
            "",
            "the value fits none of the alternatives that the schema allows here",
        ),
        (
            schema_of(dict[str, int]),
            {f"k{number}": "" for number in range(MANY)},
            "k0",
            'the value is not of type "integer"',
        ),
    ],
)
def test_a_large_refused_body_costs_little(schema: dict[str, Any], value: Any, target: str, message: str) -> None:
    """Only the first problem is looked for."""
    assert [(one.target, one.message) for one in timed(schema, value)] == [(target, message)]


@pytest.mark.parametrize("depth", [1, 14, MAX_NESTING - 1])
def test_nested_unions_cost_no_more_the_deeper_they_are(depth: int) -> None:
    """A tag names the branch that is meant, at each level. Without that, each level would double the work."""
    [problem] = timed(schema_of(Leaf | Fork), forks(depth, {"type": "leaf", "size": "large"}))
    assert ".".join(["right"] * depth + ["size"]).startswith(problem.target.removesuffix("…"))
    assert problem.message == 'the value is not of type "integer"'


def test_unions_that_cant_be_told_apart_cost_no_more_the_deeper_they_are() -> None:
    """They are only asked whether one of them fits."""
    tree = {"$ref": "#/$defs/tree", "$defs": {"tree": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}}
    for name in ("a", "b"):
        tree["$defs"][name] = {"type": "object", "properties": {"c": {"$ref": "#/$defs/tree"}, "x": {"type": "null"}}}
    value: Any = {"x": 1}
    for _ in range(12):
        value = {"c": value}
    [problem] = timed(tree, value)
    assert problem.message.endswith("none of the alternatives that the schema allows here")


@pytest.mark.parametrize(
    ("value", "target", "message"),
    [
        ({"type": "twig"}, "type", 'the value is not one of "leaf" or "fork"'),
        ({"size": 3}, "type", '"type" is a required property'),
        ({"type": "leaf"}, "size", '"size" is a required property'),
        (3, "", 'the value is not of type "object"'),
        ({"type": "fork", "left": 3}, "left", "the value is not of type object or null"),
    ],
)
def test_the_problem_of_a_tagged_union_is_that_of_the_tag(value: Any, target: str, message: str) -> None:
    """An author's client learns which member is wrong, not that no alternative fits."""
    [problem] = timed(schema_of(Leaf | Fork), value)
    assert (problem.target, problem.message) == (target, message)


def test_a_pattern_is_given_up_before_it_takes_long() -> None:
    """Back-references make an engine try every way; a text that takes too many steps is refused."""
    schema = {"type": "array", "items": {"type": "string", "pattern": r"^(a|aa)+\1$"}}
    before = time.thread_time()
    timed(schema, ["a" * 200 + "b"] * 1000)
    assert time.thread_time() - before < BOUND


def test_several_problems_are_listed_up_to_a_bound() -> None:
    """Beyond, finding all of them would take long."""
    assert len(timed(INTEGERS, ["a"] * 3)) == 3
    assert len(timed(INTEGERS, ["a"] * LISTED_UP_TO)) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "leaf", "fork"]) | st.just(0.5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "left", "right", "size", "number", *"abcde"]), inner, max_size=4)
    ),
    max_leaves=8,
)
SCHEMAS = [
    schema_of(type_)
    for type_ in (
        Leaf | Fork,
        Leaf | Fork | None,
        Mixed,
        list[Mixed],
        Numbered | int,
        list[int] | dict[str, Leaf] | None,
    )
]


@given(st.sampled_from(SCHEMAS), VALUES)
def test_whatever_is_refused_has_a_problem(schema: dict[str, Any], value: Any) -> None:
    """The rewritten schema refuses exactly what the action's own does."""
    problems = InputProblems(schema)
    is_valid = compile_schema(schema).is_valid(value)
    assert problems._validator.is_valid(value) == is_valid
    if not is_valid:
        assert problems.find(value)


class Shade(enum.Enum):
    """Names of keys."""

    RED = "red"
    BLUE = "blue"


class Shelf(msgspec.Struct):
    """With what one mistake breaks two keywords of."""

    pair: tuple[int, str] = (0, "")
    shades: dict[Shade, int] = {}
    counts: dict[int, int] = {}
    rates: dict[float, int] = {}
    price: Decimal = Decimal()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"pair": [1, "a", 2]}, [("pair", "the value has more than 2 items")]),
        ({"pair": [1]}, [("pair", "the value has less than 2 items")]),
        (
            {"pair": ["a", "a", 2]},
            [("pair", "the value has more than 2 items"), ("pair[0]", 'the value is not of type "integer"')],
        ),
        ({"shades": {"green": "x"}}, [("shades.green", 'the name "green" is not one of "blue" or "red"')]),
        (
            {"shades": {"green": 1, "red": "x"}},
            [("shades.red", "the value is not of type"), ("shades.green", 'the name "green" is not one of')],
        ),
        ({"counts": {"a b": 1}}, [('counts["a b"]', 'the name "a b" is no whole number')]),
        ({"rates": {"x": 1}}, [("rates.x", 'the name "x" is no number')]),
        ({"price": "x"}, [("price", "the value is no decimal number, as in 1.50")]),
    ],
)
def test_one_mistake_is_told_once(value: Any, expected: list[tuple[str, str]]) -> None:
    """In words of what was sent: a refused name is named, and a tuple's length is no 'false schema'."""
    found = InputProblems(validated_part(announced_schema(Shelf))).find(value)
    assert [
        (one.target, one.message[: len(message)]) for one, (_, message) in zip(found, expected, strict=True)
    ] == expected
