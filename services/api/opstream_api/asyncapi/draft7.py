"""Translation of schemas from JSON Schema 2020-12 to draft-07, for the AsyncAPI document. Pure.

Draft-07 is the default dialect of AsyncAPI 3.0, and the only one that its official parser validates (ADR 0019). A
schema that draft-07 can't express becomes one that accepts everything, which is better than one that refuses a valid
event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import jsonschema_rs

from opstream_schemas.asyncapi import Json

_DRAFT7: Final = "http://json-schema.org/draft-07/schema#"
_SAME_KEYWORDS: Final = frozenset(
    {"type", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength"}
    | {"format", "maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties", "required"}
    | {"title", "description", "readOnly", "writeOnly", "contentMediaType", "contentEncoding"}
)
"""Keywords with the same meaning in both drafts, whose values are neither schemas nor instances."""
_SCHEMA_KEYWORDS: Final = frozenset({"additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"})
_LIST_KEYWORDS: Final = frozenset({"allOf", "anyOf", "oneOf"})
_MAP_KEYWORDS: Final = frozenset({"properties", "patternProperties"})
_EXAMPLE_KEYWORDS: Final = frozenset({"default", "examples"})
_UNSUPPORTED_KEYWORDS: Final = frozenset(
    {"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
    | {"minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties", "dependencies"}
)
"""Keywords that draft-07 lacks or reads differently. All keywords that this module does not name are annotations,
and left out."""
_RESERVED_MEMBERS: Final = frozenset({"$ref", "__proto__"})
"""Names that JavaScript and resolvers of references treat specially: the official parser fails on such members."""
_DEFS: Final = "#/$defs/"
_NON_ECMA_PATTERN: Final = re.compile(
    r"\(\?(?!:|=|!|<=|<!)"  # flags, names, comments, conditions
    r"|[*+?}]\+"  # possessive
    r"|\{,"
    r"|\[\^?\]"
    r"|\\(?![dDwWsSbBnrtfv0-9xu\W])"
    "|[^\u0000-\uffff]"
)
"""Syntax that ECMA-262, the dialect of JSON Schema patterns, lacks or reads differently than Python, the dialect of
actions."""


class _UntranslatableError(Exception):
    """Draft-07 can't express the schema."""


def to_draft7(schema: Mapping[str, Any]) -> Json:
    """Return a schema in draft-07, but with its types still in `$defs`.

    Args:
        schema: JSON Schema 2020-12.
    """
    try:
        translated = _translate_root(schema)
        # Draft-07 validates schemas in `definitions`, and ignores `$defs`.
        if jsonschema_rs.meta.is_valid({**translated, "definitions": translated.get("$defs", {}), "$schema": _DRAFT7}):
            return translated
    except (_UntranslatableError, RecursionError, TypeError, ValueError, AttributeError):
        pass  # also for invalid schemas
    return {"description": "Any JSON: this document can't express the schema."}


def is_plain(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Return True if a value can appear in the document: no member has a name that tools treat specially."""
    if isinstance(value, Mapping):
        return _RESERVED_MEMBERS.isdisjoint(value) and all(map(is_plain, value.values()))
    return not isinstance(value, list) or all(map(is_plain, value))


def _translate_root(schema: Mapping[str, Any]) -> Json:
    definitions = schema.get("$defs", {})
    rest = {key: value for key, value in schema.items() if key not in {"$defs", "$id", "$schema"}}
    parts = {key: _translate(part, definitions) for key, part in definitions.items()}
    return {**_translate(rest, definitions), **({"$defs": parts} if parts else {})}


def _translate(node: Any, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Translate a schema. Its references must lead to `definitions` or to the root."""
    if isinstance(node, bool):
        return node
    if not _UNSUPPORTED_KEYWORDS.isdisjoint(node) or "$id" in node or "$defs" in node:
        raise _UntranslatableError

    def inner(part: Any) -> Any:  # noqa: ANN401
        return _translate(part, definitions)

    found: Json = {}
    for key, value in node.items():
        if key in _SAME_KEYWORDS:
            found[key] = value
        elif key in _SCHEMA_KEYWORDS:
            found[key] = inner(value)
        elif key in _LIST_KEYWORDS:
            found[key] = [inner(part) for part in value]
        elif key in _MAP_KEYWORDS:
            _check_names(value)
            found[key] = {name: inner(part) for name, part in value.items()}
        elif key in {"const", "enum"} or (key in _EXAMPLE_KEYWORDS and is_plain(value)):
            found[key] = value
    if not is_plain([found.get("const"), found.get("enum")]):
        raise _UntranslatableError
    for pattern in (*node.get("patternProperties", ()), *([node["pattern"]] if "pattern" in node else ())):
        _check_pattern(pattern)
    if "pattern" in node:
        found["pattern"] = node["pattern"]
    return _with_reference(found | _items(node, inner) | _dependencies(node, inner), node, definitions)


def _items(node: Mapping[str, Any], inner: Callable[[Any], Any]) -> Json:
    """Translate `prefixItems` to draft-07's list of `items`, and `items` beside it to `additionalItems`."""
    if "prefixItems" not in node:
        return {"items": inner(node["items"])} if "items" in node else {}
    others = {"additionalItems": inner(node["items"])} if "items" in node else {}
    return {"items": [inner(part) for part in node["prefixItems"]], **others}


def _dependencies(node: Mapping[str, Any], inner: Callable[[Any], Any]) -> Json:
    """Translate `dependentRequired` and `dependentSchemas` to draft-07's `dependencies`."""
    required = node.get("dependentRequired", {})
    schemas = {name: inner(part) for name, part in node.get("dependentSchemas", {}).items()}
    if required.keys() & schemas.keys():
        raise _UntranslatableError
    _check_names({**required, **schemas})
    return {"dependencies": {**required, **schemas}} if required or schemas else {}


def _with_reference(found: Json, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Json:
    """Add a reference. In draft-07 it would hide the keywords beside it, so it then goes into `allOf`."""
    if "$ref" not in node:
        return found
    reference = node["$ref"]
    key = reference.removeprefix(_DEFS).replace("~1", "/").replace("~0", "~")
    if reference != "#" and not (reference.startswith(_DEFS) and key in definitions):
        raise _UntranslatableError
    if not found:
        return {"$ref": reference}
    return {**found, "allOf": [{"$ref": reference}, *found.get("allOf", ())]}


def _check_names(names: Iterable[str]) -> None:
    if not _RESERVED_MEMBERS.isdisjoint(names):
        raise _UntranslatableError


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise _UntranslatableError from error
    if _NON_ECMA_PATTERN.search(pattern):
        raise _UntranslatableError
