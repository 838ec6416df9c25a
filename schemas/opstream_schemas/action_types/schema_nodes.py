"""Walks a JSON Schema. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

Schema = dict[str, Any]

_VALUE_KEYWORDS: Final = frozenset({"const", "default", "enum", "examples", "discriminator"})
"""Keywords whose values are plain values, not schemas."""
_MAP_KEYWORDS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
"""Keywords whose values are schemas by name."""


def map_schema(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Return a copy of a schema in which `change` has replaced each object that is a schema, the inner ones first."""
    copy: Schema = {}
    for key, value in schema.items():
        if key in _MAP_KEYWORDS and isinstance(value, dict):
            copy[key] = {name: _map_any(one, change) for name, one in value.items()}
        elif key in _VALUE_KEYWORDS or key.startswith("x-"):
            copy[key] = value
        else:
            copy[key] = _map_any(value, change)
    return change(copy)


def _map_any(node: Any, change: Callable[[Schema], Schema]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [_map_any(item, change) for item in node]
    return map_schema(node, change) if isinstance(node, dict) else node


def schema_nodes(schema: Schema) -> Iterator[Schema]:
    """Yield each object of a schema that is a schema itself, the inner ones first."""
    found: list[Schema] = []

    def note(node: Schema) -> Schema:
        found.append(node)
        return node

    map_schema(schema, note)
    yield from found
