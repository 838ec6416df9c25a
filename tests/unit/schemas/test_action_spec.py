"""Which changes of a type count as another schema."""

from __future__ import annotations

from typing import Any

import pytest

from opstream_schemas.action_spec import ActionSpec

pytestmark = pytest.mark.unit

PLAIN: dict[str, Any] = {
    "$ref": "#/$defs/Input",
    "$defs": {"Input": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}},
}


def spec(schema: dict[str, Any]) -> ActionSpec:
    return ActionSpec(
        resource="book", action="print", summary="", action_version=1, input_schema=schema, result_schema={}
    )


def input_of(**changes: Any) -> dict[str, Any]:
    return {**PLAIN, "$defs": {"Input": {**PLAIN["$defs"]["Input"], **changes}}}


@pytest.mark.parametrize(
    ("schema", "is_changed"),
    [
        (PLAIN, False),
        (input_of(title="Input", description="What to print.", examples=[{"title": "Moby"}]), False),
        (input_of(properties={"title": {"type": "string", "description": "Of the book."}}), False),
        (input_of(properties={"title": {"type": "integer"}}), True),
        (input_of(properties={"title": {"type": "string"}, "description": {"type": "string"}}), True),
        (input_of(properties={}), True),
        (input_of(required=[]), True),
        (input_of(properties={"title": {"type": "string", "default": {"title": "x"}}}), True),
        (input_of(properties={"title": {"enum": ["title", {"description": "a"}]}}), True),
    ],
)
def test_the_shape_counts(schema: dict[str, Any], is_changed: bool) -> None:
    """Texts for people may change; a member that is called as such a text is a member."""
    assert spec(schema).changed_schemas(spec(PLAIN)) == ["input"] * is_changed
    assert spec(PLAIN).changed_schemas(spec(schema)) == ["input"] * is_changed


def test_values_are_no_schemas() -> None:
    """A default that has a member `description` differs from one without."""
    one, other = ({"const": {"description": text}} for text in ("a", "b"))
    assert spec(one).changed_schemas(spec(other)) == ["input"]
