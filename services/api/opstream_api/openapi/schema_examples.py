"""Examples for JSON Schemas: deterministic, and always valid; without a valid one there is none. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import ceil, floor
from typing import Any, Final

import msgspec

from opstream_schemas.action_types import schema_formats as formats
from opstream_schemas.action_types.schema_engine import compile_schema
from opstream_schemas.action_types.type_decoder import Decode, schema_decoder

Json = dict[str, Any]

MAX_NODES: Final = 400
"""Values in one example, so that it stays readable although a schema branches a lot."""
MAX_ITEMS: Final = 20
"""Items of one list."""
MAX_DEPTH: Final = 20
"""Nested lists and objects."""
MAX_TEXT: Final = 300
"""Characters of one string."""

_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-11-24",
    "date-time": "2026-11-24T08:00:00Z",
    formats.DATE_TIME_ANY: "2026-11-24T08:00:00Z",
    formats.DATE_TIME_LOCAL: "2026-11-24T08:00:00",
    "decimal": "12.50",
    "duration": "PT30M",
    formats.DURATION: "PT30M",
    "email": "ada@books.example",
    "hostname": "books.example",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "integer": "1",
    "number": "1.5",
    "time": "08:00:00Z",
    formats.TIME_ANY: "08:00:00Z",
    formats.TIME_LOCAL: "08:00:00",
    "uri": "https://books.example/1",
    "uri-reference": "/books/1",
    "uuid": "01939c2e-7000-7000-8000-000000000042",
}
_TEXTS: Final = ("a", "A", "1", "a1", "A1", "a-1", "A-1", "a_1", "a.1", "a/1", "/a", "a b", "1.0", "1.0.0", "#0a0a0a")
"""Candidates for a pattern, also repeated. A pattern that matches none of them gets no example."""
_COUNT: Final = re.compile(r"\{(\d{1,4})")
_OF_STRINGS: Final = ("minLength", "maxLength", "pattern", "format")
_OF_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TYPE_KEYWORDS: Final[Mapping[str, Sequence[str]]] = {
    "object": ("properties", "required", "additionalProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems"),
    "string": _OF_STRINGS,
    "number": _OF_NUMBERS,
}
"""Keywords that imply the type of a schema without `type`."""


class _NoExampleError(Exception):
    """No valid example was found."""


def make_example(schema: dict[str, Any]) -> Any | msgspec.UnsetType:  # noqa: ANN401 - JSON
    """Return a value that the schema accepts, with optional members if possible; `UNSET` if none was found.

    Args:
        schema: JSON Schema 2020-12 with references to its own root.
    """
    try:
        validator = compile_schema(schema)
    except ValueError:
        return msgspec.UNSET
    decode = schema_decoder(schema)
    for is_full in (True, False):
        try:
            built = _ExampleBuilder(schema, is_full=is_full).build(schema)
        except (_NoExampleError, ArithmeticError, RecursionError, TypeError):
            continue  # also for valid but unusual keywords, such as a length of 1.0
        if validator.is_valid(built) and _is_decoded(decode, built):
            return built
    return msgspec.UNSET


def _is_decoded(decode: Decode | None, example: Any) -> bool:  # noqa: ANN401 - JSON
    if decode is not None:
        try:
            decode(msgspec.json.encode(example))
        except (msgspec.MsgspecError, TypeError):
            return False
    return True


class _ExampleBuilder:
    def __init__(self, root: Mapping[str, Any], *, is_full: bool) -> None:
        self._root = root
        self._is_full = is_full
        self._left = MAX_NODES
        self._depth = 0

    def build(self, schema: Any, opened: frozenset[str] = frozenset(), index: int = 0) -> Any:  # noqa: ANN401 - JSON
        """Build a value for a schema.

        Args:
            schema: a part of the root schema.
            opened: the references that lead here, to stop at recursion.
            index: position in a list, so that items differ.

        Raises:
            _NoExampleError: no valid value was found.
        """
        self._left -= 1
        if self._left < 0 or self._depth > MAX_DEPTH:
            raise _NoExampleError
        self._depth += 1
        try:
            return self._build(schema, opened, index)
        finally:
            self._depth -= 1

    def _build(self, schema: Any, opened: frozenset[str], index: int) -> Any:  # noqa: ANN401 - JSON
        flat, opened = self._flat(schema, opened)
        given = _given(flat, index)
        if given is not msgspec.UNSET:
            return given
        for union in ("anyOf", "oneOf"):
            if union in flat:
                rest = {key: value for key, value in flat.items() if key != union}
                branches = sorted(flat[union], key=_is_null)
                return self._first([{"allOf": [branch], **rest} for branch in branches], opened, index)
        match _type(flat):
            case "object":
                return self._object(flat, opened)
            case "array":
                return self._array(flat, opened)
            case "string":
                return _first_valid(_strings(flat, index), flat, _OF_STRINGS)
            case "integer" | "number" as kind:
                return _first_valid(_numbers(flat, index), {**flat, "type": kind}, (*_OF_NUMBERS, "type"))
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return {}

    def _first(self, schemas: Sequence[Any], opened: frozenset[str], index: int) -> Any:  # noqa: ANN401 - JSON
        for schema in schemas:
            try:
                return self.build(schema, opened, index)
            except _NoExampleError:
                continue
        raise _NoExampleError

    def _object(self, flat: Json, opened: frozenset[str]) -> Json:
        properties = flat.get("properties", {})
        required = flat.get("required", [])
        others = flat.get("additionalProperties", True)
        built: Json = {}
        for name, schema in properties.items():
            if name in required or (self._is_full and len(built) < flat.get("maxProperties", MAX_NODES)):
                try:
                    built[name] = self.build(schema, opened)
                except _NoExampleError:
                    if name in required:
                        raise
        free = [name for name in required if name not in properties]
        wanted = max(flat.get("minProperties", 0), int(self._is_full and isinstance(others, dict) and not properties))
        missing = range(wanted - len(built) - len(free))
        if "propertyNames" in flat:
            named = {"type": "string", **flat["propertyNames"]}
            free += [self.build(named, opened, index) for index in missing]
        else:
            free += [f"key{index + 1}" for index in missing]
        return built | {name: self.build(others, opened) for name in free}

    def _array(self, flat: Json, opened: frozenset[str]) -> list[Any]:
        prefix = flat.get("prefixItems", [])
        least = flat.get("minItems", 0)
        most = flat.get("maxItems", MAX_ITEMS)
        if least > MAX_ITEMS:
            raise _NoExampleError
        schemas = [*prefix, *[flat.get("items", True)] * max(least - len(prefix), int("items" in flat))]
        built: list[Any] = []
        for schema in schemas[: most if self._is_full else least]:
            try:
                built.append(self.build(schema, opened, len(built)))
            except _NoExampleError:
                if len(built) < least:
                    raise
                break
        return built

    def _flat(self, schema: Any, opened: frozenset[str]) -> tuple[Json, frozenset[str]]:  # noqa: ANN401 - JSON
        """Merge the schemas of `$ref` and `allOf` into a schema."""
        if schema is False:
            raise _NoExampleError
        if not isinstance(schema, dict):
            return {}, opened
        flat = {key: value for key, value in schema.items() if key not in {"$ref", "allOf"}}
        parts = list(schema.get("allOf", []))
        if "$ref" in schema:
            if schema["$ref"] in opened:
                raise _NoExampleError
            opened |= {schema["$ref"]}
            parts.insert(0, self._target(schema["$ref"]))
        for part in parts:
            more, opened = self._flat(part, opened)
            flat = _merged(more, flat)
        return flat, opened

    def _target(self, reference: str) -> Any:  # noqa: ANN401 - JSON
        if not reference.startswith("#"):
            raise _NoExampleError
        node: Any = self._root
        for step in reference[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, dict) or key not in node:
                raise _NoExampleError
            node = node[key]
        return node


def _given(flat: Json, index: int) -> Any | msgspec.UnsetType:  # noqa: ANN401 - JSON
    """Return a value that the schema itself gives; `UNSET` without one."""
    if "const" in flat:
        return flat["const"]
    for key in ("examples", "enum"):
        if flat.get(key):
            return flat[key][index % len(flat[key])]
    default = flat.get("default")
    # An empty default shows less than a built example.
    return msgspec.UNSET if default in (None, "", [], {}) else default


def _type(flat: Json) -> str:
    declared = flat.get("type")
    if isinstance(declared, list):
        return next((name for name in declared if name != "null"), "null")
    if declared:
        return str(declared)
    return next((kind for kind, keys in _TYPE_KEYWORDS.items() if any(key in flat for key in keys)), "")


def _is_null(schema: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(schema, dict) and (schema.get("type") == "null" or schema.get("const", 0) is None)


def _merged(base: Json, over: Json) -> Json:
    merged = {**base, **over}
    if "properties" in base:
        merged["properties"] = {**base["properties"], **over.get("properties", {})}
    if "required" in base:
        merged["required"] = [*base["required"], *over.get("required", [])]
    return merged


def _strings(flat: Json, index: int) -> Iterator[str]:
    least, most = flat.get("minLength", 0), flat.get("maxLength", MAX_TEXT)
    if "base64" in {flat.get("contentEncoding"), flat.get("format")}:
        size = min(max(flat.get(formats.MIN_BYTES, 0), 3), flat.get(formats.MAX_BYTES, MAX_TEXT), MAX_TEXT)
        yield b64encode(b"ada"[:size].ljust(size, b"0")).decode()
    if flat.get("format") in _FORMATS:
        yield _FORMATS[flat["format"]]
    text = f"string {index + 1}" if index else "string"
    if least <= MAX_TEXT:
        yield (text * (least // len(text) + 1))[: max(least, min(len(text), most))]
    if "pattern" not in flat:
        return
    yield from _FORMATS.values()
    lengths = {1, least, *(int(count) for count in _COUNT.findall(str(flat["pattern"])))}
    for text, length in product(_TEXTS, sorted(lengths)):
        yield text
        if 0 < length <= MAX_TEXT:
            yield (text * length)[:length]


def _numbers(flat: Json, index: int) -> Iterator[float]:
    step = flat.get("multipleOf", 1)
    lows = [flat[key] for key in ("minimum", "exclusiveMinimum") if key in flat]
    highs = [flat[key] for key in ("maximum", "exclusiveMaximum") if key in flat]
    yield 1 + index
    for low in (*lows, 1):
        first = ceil(low / step) * step
        yield from (first + index * step, first, first + step)
    for high in highs:
        last = floor(high / step) * step
        yield from (last, last - step)
        yield from ((low + high) / 2 for low in lows)


def _first_valid(candidates: Iterator[Any], flat: Json, keys: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    rules = {key: flat[key] for key in keys if key in flat}
    accepts = compile_schema(rules).is_valid
    for candidate in candidates:
        if accepts(candidate):
            return candidate
    raise _NoExampleError
