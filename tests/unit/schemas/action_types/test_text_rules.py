"""What msgspec's decoder overlooks in texts, by schemas that no type of msgspec's has: authors may write their own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opstream_schemas.action_types.text_rules import find_text_rules

pytestmark = pytest.mark.unit

LOWER = {"type": "string", "pattern": "^[a-z]+$"}
RATES = {"type": "object", "propertyNames": {"format": "number"}, "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "object", "propertyNames": {"maxLength": 3}, "additionalProperties": {"type": "string"}},
        {"type": "object", "propertyNames": {"format": "integer", "enum": ["1"]}},
        {"type": "string", "format": "decimal", "pattern": "x"},
        {"type": "string", "format": ["time"], "pattern": 1},
        {"propertyNames": {"format": ["number"]}},
    ],
)
def test_a_schema_without_rules(schema: dict[str, Any]) -> None:
    """Its values are not walked at all; what is no schema is another part's to refuse."""
    assert find_text_rules(schema) is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"anyOf": [True, LOWER]}, "A"),
        ({"anyOf": [{"$ref": "#/$defs/none"}, LOWER]}, "A"),
        ({"anyOf": [LOWER, {"type": ["string", "null"]}]}, "A"),
        ({"anyOf": [True, {"$ref": "#/properties/x"}, {"type": "array", "items": LOWER}]}, ["A"]),
        ({"properties": {"x": LOWER}, "additionalProperties": True}, {"y": "A"}),
        ({"prefixItems": [True, LOWER]}, [1, "a", "A"]),
        (LOWER, 7),
        (RATES, {"x": 1, "1": 2, "1.0": 3}),
    ],
)
def test_what_no_rule_is_sure_of_passes(schema: dict[str, Any], value: Any) -> None:
    """A union that is not one of msgspec's decodes no type, and a name that is no key the decoder refuses itself."""
    rules = find_text_rules(schema)
    assert rules is not None
    rules.check(value)


@pytest.mark.parametrize(
    ("schema", "value", "place"),
    [
        ({"anyOf": [LOWER, {"type": "integer"}, {"type": "null"}]}, "A", "$"),
        (
            {"properties": {"x": LOWER}, "additionalProperties": {"type": "array", "items": LOWER}},
            {"y": ["A"]},
            "$.y[0]",
        ),
        ({"prefixItems": [True], "items": LOWER}, ["A", "a", "A"], "$[2]"),
        ({"properties": {"a b": RATES}}, {"a b": {"1": 1, "1e0": 2}}, '$["a b"]["1e0"]'),
        (
            {"$ref": "#/$defs/T", "$defs": {"T": {"items": {"$ref": "#/$defs/T"}, **LOWER}}},
            [["a"], [["A"]]],
            "$[1][0][0]",
        ),
    ],
)
def test_where_a_rule_is_broken(schema: dict[str, Any], value: Any, place: str) -> None:
    """At any depth, in circles of references, too."""
    rules = find_text_rules(schema)
    assert rules is not None
    with pytest.raises(msgspec.ValidationError) as caught:
        rules.check_document(msgspec.json.encode(value))
    assert str(caught.value).endswith(f" - at `{place}`")


def test_patterns_are_left_to_another_part() -> None:
    """The API's validator has checked them: its rules are the others."""
    assert find_text_rules(LOWER, with_patterns=False) is None
    rules = find_text_rules({"properties": {"text": LOWER, "rates": RATES}}, with_patterns=False)
    assert rules is not None
    rules.check({"text": "A"})
    with pytest.raises(msgspec.ValidationError, match=r'the names "1" and "1\.0" are the same key'):
        rules.check({"text": "A", "rates": {"1": 1, "1.0": 1}})
