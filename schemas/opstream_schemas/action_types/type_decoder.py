"""Decodes JSON by a schema exactly as the runner decodes it into the handler's type, since msgspec does both.

JSON Schema and msgspec differ: `1.0` is an integer to one and a float to the other, `P1W` is a duration to one and none
to the other. So the types that an author's schema was made from are made again from the schema: structs, dates,
decimals, tagged unions. What they decode the runner decodes (docs/adr/0030). What a schema can't say is not checked
here: code of the author's own types (`__post_init__`, validators).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Union
from uuid import UUID

import msgspec

from . import schema_formats as formats
from .schema_nodes import Schema

_REF: Final = "#/$defs/"
_NUMBER_KEYWORDS: Final = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
_TEXTS: Final[dict[str, Any]] = {
    "date-time": Annotated[datetime, msgspec.Meta(tz=True)],
    formats.DATE_TIME_LOCAL: Annotated[datetime, msgspec.Meta(tz=False)],
    formats.DATE_TIME_ANY: datetime,
    "time": Annotated[time, msgspec.Meta(tz=True)],
    formats.TIME_LOCAL: Annotated[time, msgspec.Meta(tz=False)],
    formats.TIME_ANY: time,
    "date": date,
    "duration": timedelta,
    formats.DURATION: timedelta,
    "uuid": UUID,
    "decimal": Decimal,
}
DECODED_FORMATS: Final = frozenset({*_TEXTS, formats.INTEGER_KEY, formats.NUMBER_KEY, formats.BASE64_KEY})
"""Values of `format` that a decoder checks, and more exactly than a validator would."""

_make_named_tuple: Final[Any] = namedtuple  # noqa: PYI024 - the names are known only at run time

Decode = Callable[[bytes], Any]


def schema_decoder(schema: Schema) -> Decode | None:
    """Return a function that decodes the JSON that a schema describes, as the handler's own type would.

    It raises what msgspec does: `ValidationError` and `DecodeError`, and `TypeError` for a set of unhashable items. A
    node that msgspec would not have made (from `extra_json_schema`, say) takes any JSON. Patterns are not checked here:
    Python's `re` may take exponential time (`text_rules`).

    Args:
        schema: of an action's input or result.

    Returns:
        None if the schema describes no type that msgspec could decode.
    """
    try:
        return msgspec.json.Decoder(_TypeBuilder(schema).build()).decode
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, NotImplementedError):
        return None  # written by hand, or by a later opstream


class _TypeBuilder:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._defs: dict[str, Schema] = schema.get("$defs", {})
        self._known: dict[tuple[str, str], Any] = {}
        self._types: dict[str, Callable[[Schema], Any]] = {
            "null": lambda _: None,
            "boolean": lambda _: bool,
            "integer": lambda node: _constrained(int, node, _NUMBER_KEYWORDS),
            "number": lambda node: _constrained(float, node, _NUMBER_KEYWORDS),
            "string": self._text,
            "array": self._array,
            "object": self._object,
        }

    def build(self) -> Any:  # noqa: ANN401 - a type
        return self._type(self._schema)

    def _type(self, node: Any) -> Any:  # noqa: ANN401
        if not isinstance(node, dict):
            return Any
        if "$ref" in node:
            return self._referred(node["$ref"], "")
        if "anyOf" in node:
            return self._union(node)
        if "enum" in node:
            return _literal(node["enum"])
        make = self._types.get(node.get("type", "")) if isinstance(node.get("type"), str) else None
        return Any if make is None else make(node)

    def _referred(self, reference: str, tag_field: str) -> Any:  # noqa: ANN401
        """Return the type of a definition, as a member of a tagged union if `tag_field` is not empty."""
        if not reference.startswith(_REF):
            return Any
        name = reference.removeprefix(_REF)
        if (name, tag_field) in self._known:
            return self._known[name, tag_field]
        node = self._defs[name]
        if "enum" in node:
            return _literal(node["enum"])
        if node.get("type") == "object" and "properties" in node:
            return self._struct(node, name, tag_field)
        if node.get("type") == "array" and "prefixItems" in node:
            return self._array_struct(node, name, is_tagged=bool(tag_field))
        self._known[name, tag_field] = Any  # a circle of references that has no struct in it
        return self._type(node)

    def _text(self, node: Schema) -> Any:  # noqa: ANN401
        if node.get("contentEncoding") == "base64":
            return _constrained(bytes, node, {formats.MIN_BYTES: "min_length", formats.MAX_BYTES: "max_length"})
        special = _TEXTS.get(node.get("format", ""))
        if special is not None:
            return special
        return _constrained(str, node, {"minLength": "min_length", "maxLength": "max_length"})

    def _array(self, node: Schema) -> Any:  # noqa: ANN401
        items = node.get("prefixItems")
        if isinstance(items, list) and node.get("items") is False:
            return tuple[tuple(self._type(item) for item in items)]  # type: ignore[misc]
        if node.get("maxItems") == 0 == node.get("minItems"):
            return tuple[()]
        if items is not None:
            return self._array_struct(node, "", is_tagged=False)
        item = self._type(node.get("items", True))
        # Both have a hash if their items have one, so that they can be items of a set.
        is_set = node.get("uniqueItems") is True
        collection = frozenset[item] if is_set else tuple[item, ...]  # type: ignore[valid-type]
        return _constrained(collection, node, {"minItems": "min_length", "maxItems": "max_length"})

    def _object(self, node: Schema) -> Any:  # noqa: ANN401
        if "properties" in node:
            return self._struct(node, "", "")
        value = self._type(node.get("additionalProperties", True))
        key = self._key(node.get("propertyNames", {}))
        keywords = {"minProperties": "min_length", "maxProperties": "max_length"}
        return _constrained(dict[key, value], node, keywords)  # type: ignore[valid-type]

    def _key(self, node: Schema) -> Any:  # noqa: ANN401
        name = node.get("format")
        if "enum" in node:
            return _literal([int(one) for one in node["enum"]] if name == formats.INTEGER_KEY else node["enum"])
        if name == formats.INTEGER_KEY:
            return _constrained(int, node, _NUMBER_KEYWORDS)
        if name == formats.NUMBER_KEY:
            return _constrained(float, node, _NUMBER_KEYWORDS)
        if name == formats.BASE64_KEY:
            return self._text({**node, "contentEncoding": "base64"})
        return self._text(node)

    def _union(self, node: Schema) -> Any:  # noqa: ANN401
        options: list[Any] = []
        if self._is_ambiguous(node):
            return Any  # written by hand: msgspec makes no such union, and would read it otherwise
        self._add_options(node, options)
        return Union[tuple(options)]  # noqa: UP007 - made at run time

    def _is_ambiguous(self, node: Schema) -> bool:
        """Return True if two options of a union may take the same type of JSON and no tag tells them apart."""
        seen: set[str] = set()
        for option in _options(node):
            resolved = self._resolved(option)
            kinds = _kinds(resolved)
            if seen & kinds and not (kinds == {"object"} and _is_tagged(node)) and _tag(resolved) is None:
                return True
            seen |= kinds
        return False

    def _add_options(self, node: Schema, options: list[Any]) -> None:
        tag_field = node.get("discriminator", {}).get("propertyName", "")
        arrays = [one for one in node["anyOf"] if _tag(self._resolved(one)) is not None]
        for option in node["anyOf"]:
            if not isinstance(option, dict):
                options.append(Any)
            elif "anyOf" in option:
                self._add_options(option, options)
            elif tag_field and "$ref" in option:
                options.append(self._referred(option["$ref"], tag_field))
            elif len(arrays) > 1 and option in arrays:
                options.append(self._referred(option["$ref"], "0"))
            else:
                options.append(self._type(option))

    def _resolved(self, node: Any) -> Any:  # noqa: ANN401 - JSON
        reference = node.get("$ref") if isinstance(node, dict) else None
        return self._defs.get(reference.removeprefix(_REF)) if isinstance(reference, str) else node

    def _struct(self, node: Schema, name: str, tag_field: str) -> Any:  # noqa: ANN401
        properties: dict[str, Any] = node["properties"]
        required = node.get("required", ())
        members = [member for member in properties if member != tag_field]
        names = [f"m{number}" for number in range(len(members))]
        options: dict[str, Any] = {"forbid_unknown_fields": node.get("additionalProperties") is False}
        if tag_field:
            (options["tag"],) = properties[tag_field]["enum"]
            options["tag_field"] = tag_field
        struct = msgspec.defstruct(
            "Schema",
            [
                (own, Any) if member in required else (own, Any, msgspec.UNSET)
                for own, member in zip(names, members, strict=True)
            ],
            frozen=True,
            kw_only=True,
            rename=dict(zip(names, members, strict=True)),
            **options,
        )
        return self._fill(struct, names, (properties[member] for member in members), (name, tag_field))

    def _array_struct(self, node: Schema, name: str, *, is_tagged: bool) -> Any:  # noqa: ANN401
        items: list[Any] = node["prefixItems"]
        least = node.get("minItems", 0)
        key = (name, "0" if is_tagged else "")
        options: dict[str, Any] = {"forbid_unknown_fields": "maxItems" in node}
        if is_tagged:
            options["tag"] = _tag(node)
            items, least = items[1:], least - 1
        names = [f"m{number}" for number in range(len(items))]
        if "maxItems" in node and not is_tagged:
            defaults = [None] * (len(names) - least)
            return self._fill(_make_named_tuple("Schema", names, defaults=defaults), names, items, key)
        fields = [(own, Any) if index < least else (own, Any, msgspec.UNSET) for index, own in enumerate(names)]
        struct = msgspec.defstruct("Schema", fields, frozen=True, array_like=True, **options)
        return self._fill(struct, names, items, key)

    def _fill(self, made: Any, names: list[str], nodes: Iterable[Any], key: tuple[str, str]) -> Any:  # noqa: ANN401
        """Set the types of a class's members: last, because they may refer to the class."""
        if key[0]:
            self._known[key] = made
        made.__annotations__ = {own: self._type(node) for own, node in zip(names, nodes, strict=True)}
        return made


def _options(node: Schema) -> Iterator[Any]:
    for option in node["anyOf"]:
        if isinstance(option, dict) and "anyOf" in option:
            yield from _options(option)
        else:
            yield option


def _is_tagged(node: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(node, dict) and ("discriminator" in node or any(map(_is_tagged, node.get("anyOf", ()))))


def _kinds(node: Any) -> set[str]:  # noqa: ANN401 - JSON
    """Return the types of JSON that a node takes; all that are known as `any` if it does not say."""
    if isinstance(node, dict) and isinstance(node.get("enum"), list):
        return {type(value).__name__ for value in node["enum"]} & {"str", "int"}
    kind = node.get("type") if isinstance(node, dict) else None
    return {{"string": "str", "integer": "int"}.get(kind, kind)} if isinstance(kind, str) else {"any"}


def _tag(node: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the tag of an array that is a tagged struct; None if it has none."""
    items = node.get("prefixItems") if isinstance(node, dict) else None
    first = items[0] if isinstance(items, list) and items else None
    values = first.get("enum") if isinstance(first, dict) else None
    return values[0] if isinstance(values, list) and len(values) == 1 else None


def _literal(values: list[Any]) -> Any:  # noqa: ANN401
    if values and all(value is None or type(value) in {int, str} for value in values):
        return Literal[tuple(values)]
    return Any


def _constrained(made: Any, node: Schema, keywords: dict[str, str]) -> Any:  # noqa: ANN401
    limits = {name: node[keyword] for keyword, name in keywords.items() if keyword in node}
    return Annotated[made, msgspec.Meta(**limits)] if limits else made
