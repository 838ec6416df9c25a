"""JSON Schemas as components of the document: under names of their own, with references to these names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from .shared import SCHEMAS, Json

_DEFS: Final = "#/$defs/"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_LITERALS: Final = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are not schemas."""


def to_components(schema: Mapping[str, Any], name: str) -> Json:
    """Return a schema and its `$defs` as components. Their references start at the document's root.

    Args:
        schema: JSON Schema 2020-12.
        name: name of the component. The names of the `$defs` begin with it.
    """
    names: dict[str, str] = {}
    for key in schema.get("$defs", {}):
        unique = f"{name}.{_NOT_IN_NAMES.sub('_', key)}"
        while unique in names.values():
            unique += "_"
        names[key] = unique
    # `$id` would be a new base for references, and the dialect is OpenAPI's own.
    top = {key: value for key, value in schema.items() if key not in {"$defs", "$id", "$schema"}}
    others = {names[key]: _rewritten(value, name, names) for key, value in schema.get("$defs", {}).items()}
    return {name: _rewritten(top, name, names), **others}


def _rewritten(node: Any, name: str, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [_rewritten(item, name, names) for item in node]
    if not isinstance(node, dict):
        return node
    rewritten: Json = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            rewritten[key] = _reference(value, name, names)
        else:
            rewritten[key] = value if key in _LITERALS else _rewritten(value, name, names)
    return rewritten


def _reference(reference: str, name: str, names: Mapping[str, str]) -> str:
    if reference.startswith(_DEFS):
        key, slash, rest = reference.removeprefix(_DEFS).partition("/")
        return f"{SCHEMAS}{names.get(_unescaped(key), name)}{slash}{rest}"
    return f"{SCHEMAS}{name}{reference[1:]}" if reference.startswith("#") else reference


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")
