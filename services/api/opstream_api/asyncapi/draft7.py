"""The schemas of an action, which are JSON Schema 2020-12, as components in draft-07: the dialect that AsyncAPI 3.0 has
by default, and the only one that its official parser checks (ADR 0019).

A schema that uses what draft-07 has no words for becomes one that takes everything and says where the whole one is:
rather that than one that refuses what is sent. Pure. Called by `document.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import jsonschema_rs

from opstream_api.openapi.schema_components import to_components
from opstream_schemas.asyncapi import Json

_DRAFT7: Final = "http://json-schema.org/draft-07/schema#"
_SAME_KEYWORDS: Final = frozenset(
    {"type", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength"}
    | {"format", "maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties", "required"}
    | {"title", "description", "readOnly", "writeOnly", "contentMediaType", "contentEncoding"}
)
"""Keywords that mean the same in both, and hold neither schemas nor values."""
_SCHEMA_KEYWORDS: Final = frozenset({"additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"})
_LIST_KEYWORDS: Final = frozenset({"allOf", "anyOf", "oneOf"})
_MAP_KEYWORDS: Final = frozenset({"properties", "patternProperties"})
_EXAMPLE_KEYWORDS: Final = frozenset({"default", "examples"})
_UNSUPPORTED_KEYWORDS: Final = frozenset(
    {"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
    | {"minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties", "dependencies"}
)
"""What draft-07 lacks, or reads in another way. Whatever this module does not name is an annotation, and left out."""
_RESERVED_MEMBERS: Final = frozenset({"$ref", "__proto__"})
"""Members that JavaScript, or whatever resolves references, does not take for members (the official parser fails)."""
_DEFS: Final = "#/$defs/"
_NON_ECMA_PATTERN: Final = re.compile(
    r"\(\?(?!:|=|!|<=|<!)"  # flags, names, comments, conditions
    r"|[*+?}]\+"  # possessive
    r"|\{,"
    r"|\[\^?\]"
    r"|\\(?![dDwWsSbBnrtfv0-9xu\W])"
    "|[^\u0000-\uffff]"
)
"""What ECMA-262, whose patterns JSON Schema has, lacks or reads in another way than Python, in which actions write
theirs."""


class _UntranslatableError(Exception):
    """Draft-07 can't say it."""


def draft7_components(schema: Mapping[str, Any], name: str) -> Json:
    """A schema and its `$defs` as components.

    Args:
        schema: JSON Schema 2020-12.
        name: of its component; those of its `$defs` begin with it.
    """
    try:
        translated = _translate_root(schema)
        # The name that draft-07 has for them, without which it does not look at them.
        if jsonschema_rs.meta.is_valid({**translated, "definitions": translated.get("$defs", {}), "$schema": _DRAFT7}):
            return to_components(translated, name)
    except (_UntranslatableError, RecursionError, TypeError, ValueError, AttributeError):
        pass  # also for schemas that are none
    return {name: {"description": "Any JSON here: the schema is one that this document can't hold."}}


def is_plain(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether a value can stand in the document: it has no member that tools would take for something else."""
    if isinstance(value, Mapping):
        return _RESERVED_MEMBERS.isdisjoint(value) and all(map(is_plain, value.values()))
    return not isinstance(value, list) or all(map(is_plain, value))


def _translate_root(schema: Mapping[str, Any]) -> Json:
    definitions = schema.get("$defs", {})
    rest = {key: value for key, value in schema.items() if key not in {"$defs", "$id", "$schema"}}
    parts = {key: _translate(part, definitions) for key, part in definitions.items()}
    return {**_translate(rest, definitions), **({"$defs": parts} if parts else {})}


def _translate(node: Any, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """A schema in draft-07; its references are to `definitions` or to the root."""
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
    """2020-12 has `prefixItems` for draft-07's list of `items`, and `items` for its `additionalItems`."""
    if "prefixItems" not in node:
        return {"items": inner(node["items"])} if "items" in node else {}
    others = {"additionalItems": inner(node["items"])} if "items" in node else {}
    return {"items": [inner(part) for part in node["prefixItems"]], **others}


def _dependencies(node: Mapping[str, Any], inner: Callable[[Any], Any]) -> Json:
    """2020-12 has two keywords for draft-07's one."""
    required = node.get("dependentRequired", {})
    schemas = {name: inner(part) for name, part in node.get("dependentSchemas", {}).items()}
    if required.keys() & schemas.keys():
        raise _UntranslatableError
    _check_names({**required, **schemas})
    return {"dependencies": {**required, **schemas}} if required or schemas else {}


def _with_reference(found: Json, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Json:
    """In draft-07 a reference hides what stands beside it."""
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
