"""Examples for JSON Schemas: valid, deterministic, and none where no valid one is found."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookshelf.actions import upload_finish, upload_start
from opstream_api.openapi.schema_examples import MAX_ITEMS, make_example
from opstream_api.openapi.shared import RESOURCE_ID_PATTERN
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_resource_id

pytestmark = pytest.mark.unit

LIST_OF_TREES: Final = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "branches": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                "parent": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
            },
            "required": ["name", "branches", "parent"],
        }
    },
}
WIDE: Final = {
    "$ref": "#/$defs/T0",
    "$defs": {
        **{
            f"T{n}": {"type": "object", "properties": {side: {"$ref": f"#/$defs/T{n + 1}"} for side in "ab"}}
            for n in range(12)
        },
        "T12": {"type": "integer"},
    },
}
"""It branches in two, twelve times."""
DEEP: Final = json.loads('{"properties": {"a": ' * 40 + '{"type": "null"}' + "}}" * 40)


def is_valid(schema: Any, value: Any) -> bool:
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": None}, None),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "string", "examples": ["chapters/1.md"]}, "chapters/1.md"),
        ({"type": "boolean", "default": False}, False),
        ({"type": "string", "default": ""}, "string"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}], "default": None}, 1),
        ({"oneOf": [{"type": "string", "pattern": "^(?:Ada|Bob) L$"}, {"type": "null"}]}, None),
        ({"type": ["null", "string"], "maxLength": 3}, "str"),
        ({"type": "string", "minLength": 8}, "stringst"),
        ({"type": "string", "format": "date-time"}, "2026-11-24T08:00:00Z"),
        ({"type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64}, "a" * 64),
        ({"type": "string", "pattern": "^[A-Z]{3}$"}, "AAA"),
        ({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}, "2026-11-24"),
        ({"type": "integer", "minimum": 10, "multipleOf": 7}, 14),
        ({"type": "integer", "maximum": -4}, -4),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "array", "items": {"type": "string"}}, ["string"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        (
            {"type": "array", "prefixItems": [{"type": "boolean"}, {"const": 7}], "minItems": 2, "items": False},
            [True, 7],
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"key1": 1}),
        ({"type": "object", "required": ["free"]}, {"free": {}}),
        (
            {"allOf": [{"properties": {"a": {"type": "null"}}}, {"properties": {"b": {"const": 1}}}]},
            {"a": None, "b": 1},
        ),
        ({"$ref": "#/$defs/a~1b", "minimum": 5, "$defs": {"a/b": {"type": "integer"}}}, 5),
        (
            {"properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["a"], "not": {"required": ["b"]}},
            {"a": 1},
        ),
        (LIST_OF_TREES, {"name": "string", "branches": [], "parent": None}),
        ({}, {}),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_built_examples(schema: dict[str, Any], expected: Any) -> None:
    """The schema's own values are preferred; otherwise the example is short and valid."""
    assert make_example(schema) == expected
    assert is_valid(schema, expected)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(?:Ada|Bob) Lovelace$"},
        {"type": "string", "pattern": "["},
        {"type": "nonsense"},
        {"$ref": "https://books.example/schema"},
        {"$ref": "#/$defs/nobody"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}, "required": ["b"]}}},
        {"properties": {"a": False}, "required": ["a"]},
        {"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "minItems": MAX_ITEMS + 1},
        {"type": "string", "minLength": 1_000_000},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "number", "minimum": 1e308, "multipleOf": 1e-308},
        {"examples": ["wrong"], "type": "integer"},
        {"not": {}},
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_rather_none_than_a_wrong_one(schema: dict[str, Any]) -> None:
    """There is no example if nothing matches the schema, or the schema is invalid."""
    assert make_example(schema) is msgspec.UNSET


def test_a_valid_but_unusual_schema() -> None:
    """A length of 1.0 is allowed, and breaks nothing."""
    assert make_example({"type": "array", "minItems": 1.0, "items": {"const": 1}}) in (msgspec.UNSET, [1])


@pytest.mark.parametrize("schema", [WIDE, DEEP], ids=["wide", "deep"])
def test_examples_stay_small(schema: dict[str, Any]) -> None:
    """An example is bounded, whatever the schema allows."""
    found = make_example(schema)
    assert is_valid(schema, found)
    assert len(json.dumps(found)) < 8000


@pytest.mark.parametrize("action", [upload_start, upload_finish], ids=str)
def test_the_bookshelf_has_examples(action: Any) -> None:
    """The inputs and results of its two actions have examples, with optional members."""
    for schema in (action.spec.input_schema, action.spec.result_schema):
        found = make_example(schema)
        assert is_valid(schema, found)
        (name,) = [key for key in schema["$defs"] if schema["$ref"].endswith(f"/{key}")]
        assert list(found) == list(schema["$defs"][name]["properties"])


SCALARS: Final = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": st.integers(0, 12)}),
    st.fixed_dictionaries({"type": st.just("string"), "format": st.sampled_from(["uuid", "email", "date", "odd"])}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={"minimum": st.integers(-50, 50), "exclusiveMinimum": st.integers(-50, 50)},
    ),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers() | st.none() | st.text(max_size=3), min_size=1)),
    st.builds(lambda value: {"const": value}, st.none() | st.booleans() | st.text(max_size=3)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}, True]),
)


def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Strategy for schemas that contain schemas."""
    names = st.sampled_from(["a", "b", "c"])
    return st.one_of(
        st.builds(
            lambda properties, required: {"type": "object", "properties": properties, "required": required},
            st.dictionaries(names, inner, max_size=3),
            st.lists(names, unique=True),
        ),
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda one: {"$ref": "#/$defs/One", "$defs": {"One": one}}, inner),
    )


@given(st.recursive(SCALARS, wider, max_leaves=8).filter(lambda schema: schema is not True))
def test_any_schema(schema: dict[str, Any]) -> None:
    """An example is valid and deterministic. A simple schema has one, unless a reference is broken."""
    found = make_example(schema)
    assert make_example(schema) == found
    if found is msgspec.UNSET:
        assert "$ref" in json.dumps(schema)
    else:
        assert is_valid(schema, found)


def test_ids_of_resources_have_one_grammar() -> None:
    """The pattern in the document accepts and refuses the same characters as the service."""
    takes = jsonschema_rs.Draft202012Validator({"pattern": RESOURCE_ID_PATTERN}).is_valid

    def is_taken(text: str) -> bool:
        try:
            check_resource_id(text)
        except InvalidName:
            return False
        return True

    # Format characters of a newer Unicode than this Python's may be refused already.
    newer = re.compile("[\U00013439-\U0001343f]")
    characters = (chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    different = [char for char in characters if takes(f"a{char}") != is_taken(f"a{char}") and not newer.match(char)]
    assert different == []
    for text in (".", "..", "...", ".a", "..a", "a.", ".a.", " ", "a/b", "", "a\n", "\n", "k\u200d", "é/"):
        assert takes(text) == is_taken(text), text
