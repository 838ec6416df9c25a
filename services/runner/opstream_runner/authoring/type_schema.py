"""The JSON Schema that an action announces for a type, and the types that it refuses (docs/adr/0030).

msgspec makes the schema. Added is what JSON Schema has no word for, so that the API can decode by the schema exactly as
the runner decodes into the type. Patterns are written so that all engines read them alike.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from opstream_schemas.action_types import schema_formats as formats
from opstream_schemas.action_types.portable_pattern import UnportablePattern, portable_pattern
from opstream_schemas.action_types.schema_nodes import Schema, map_schema, schema_nodes

from .hashability import unhashable_part

_INSTEAD: Final = (
    "use msgspec.Struct, a dataclass, an attrs class, a TypedDict or a NamedTuple, of the types in the table of "
    "docs/actions.md"
)
_MAX_FLAGS: Final = 8
_LARGEST_STEP: Final = 2**20
"""The greatest denominator of a float's `multiple_of`: above it, the float is not what its author wrote."""
_FIELD_TYPES: Final = (types.StructType, types.DataclassType, types.TypedDictType, types.NamedTupleType)


SCHEMA_FORMAT: Final = 1
"""`ActionSpec.schema_format`: raise it when the same type gets another schema than in the release before."""


class UnsupportedType(ValueError):
    """A type that no action can have. The message says what to use instead."""


def announced_schema(model: Any, *, is_input: bool = False) -> Schema:  # noqa: ANN401 - any type that msgspec knows
    """Return the schema of an action's input or result, every object closed.

    Args:
        model: the type.
        is_input: clients send it, so that members that only its own code may set are refused.

    Raises:
        UnsupportedType: the API could not validate the type, or the runner not decode it.
    """
    try:
        msgspec.json.Decoder(model)
        schema = msgspec.json.schema(model)
        info = types.type_info(model)
    except (NameError, TypeError, ValueError, NotImplementedError) as error:
        raise UnsupportedType(_refusal(model, error)) from error
    _Announcer(schema, is_input=is_input).announce(info, schema)
    # As JSON, since a tag that is a number is a key of msgspec's schema.
    try:
        announced: Schema = msgspec.json.decode(msgspec.json.encode(map_schema(schema, _finished)))
    except UnsupportedType:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"what describes it (examples, extra_json_schema) has no JSON: {error}"
        raise UnsupportedType(_refusal(model, ValueError(reason))) from error
    _check_engine(announced)
    return announced


def _refusal(model: Any, error: Exception) -> str:  # noqa: ANN401
    name = getattr(model, "__name__", None) or str(model)
    foreign = model if isinstance(model, type) else None
    if foreign is not None and any(base.__module__.partition(".")[0] == "pydantic" for base in foreign.__mro__):
        return f"{name} is a Pydantic model, which opstream does not read: {_INSTEAD}"
    reason = str(error)
    if reason.startswith("Integer bounds"):
        return (
            f"{name} has a limit of an int (ge, gt, le, lt or multiple_of) beyond 64 bits, which is not supported: "
            "take one from -2**63 to 2**63 - 1, or leave it out and check the number in the handler"
        )
    if "custom types" in reason or "Pydantic" in reason:
        part = reason.rpartition("type ")[2].removesuffix(" is not supported")
        reason = f"{part} is none of the supported types: {_INSTEAD}"
    return f"{name} has no JSON Schema: {reason}"


class _Announcer:
    """Adds to msgspec's schema, in place.

    Args:
        schema: all of it, with its definitions.
        is_input: clients send it.
    """

    def __init__(self, schema: Schema, *, is_input: bool) -> None:
        self._is_input = is_input
        self._defs: dict[str, Schema] = schema.get("$defs", {})
        self._seen: set[str] = set()
        self._announcers: dict[type[types.Type], Callable[[Any, Schema], None]] = {
            types.DateTimeType: self._date_time,
            types.TimeType: self._time,
            types.DecimalType: self._decimal,
            types.TimeDeltaType: self._duration,
            types.BytesType: self._bytes,
            types.ByteArrayType: self._bytes,
            types.MemoryViewType: self._bytes,
            types.FloatType: self._float,
            types.EnumType: self._enum,
            types.DictType: self._mapping,
            types.TupleType: self._tuple,
            types.UnionType: self._union,
        }

    def announce(self, kind: types.Type, node: Schema) -> None:
        """Add to the node of a type, and to all nodes below it."""
        while isinstance(kind, types.Metadata):
            kind = kind.type
        reference = node.get("$ref")
        if reference is not None:
            name = reference.rpartition("/")[2]
            if name in self._seen:
                return
            if name not in self._defs:
                raise UnsupportedType(f"its extra_json_schema refers to {reference}, which is no JSON Schema of it")
            self._seen.add(name)
            node = self._defs[name]
        if isinstance(kind, _FIELD_TYPES):
            self._fields(kind, node)
        elif isinstance(kind, types.CollectionType):
            self._items(kind, node)
        elif (announcer := self._announcers.get(type(kind))) is not None:
            announcer(kind, node)

    def _fields(self, kind: Any, node: Schema) -> None:  # noqa: ANN401 - one of four classes without a common base
        if self._is_input and (name := _uninitialized(kind.cls)):
            raise UnsupportedType(
                f"{kind.cls.__name__}.{name} has init=False, but a client could send it, and would override what the "
                "class sets: make it a property, or leave out init=False"
            )
        items = node.get("prefixItems")
        if items is not None:
            for field, item in zip(kind.fields, items[len(items) - len(kind.fields) :], strict=True):
                self.announce(field.type, item)
            return
        for field in kind.fields:
            self.announce(field.type, node["properties"][field.encode_name])

    def _items(self, kind: types.CollectionType, node: Schema) -> None:
        if isinstance(kind, types.SetType | types.FrozenSetType) and (reason := unhashable_part(kind.item_type)):
            raise UnsupportedType(f"the items of a set need a hash; {reason}")
        if "items" in node:
            self.announce(kind.item_type, node["items"])

    def _tuple(self, kind: types.TupleType, node: Schema) -> None:
        for item, inner in zip(kind.item_types, node.get("prefixItems", ()), strict=True):
            self.announce(item, inner)

    def _union(self, kind: types.UnionType, node: Schema) -> None:
        structs: list[types.Type] = []
        others: list[types.Type] = []
        for one in kind.types:
            real = one
            while isinstance(real, types.Metadata):
                real = real.type
            if isinstance(real, types.StructType) and not real.array_like:
                structs.append(real)
            elif not isinstance(real, types.NoneType):
                others.append(one)
        options: list[Schema] = node["anyOf"]
        if len(structs) > 1 and "discriminator" not in node:
            nested = next(option for option in options if "discriminator" in option)
            options = [*options[: len(others)], *nested["anyOf"]]
        # msgspec lists the structs last, but for `null`.
        for one, option in zip([*others, *structs], options, strict=False):
            self.announce(one, option)

    def _mapping(self, kind: types.DictType, node: Schema) -> None:
        if "additionalProperties" in node:
            self.announce(kind.value_type, node["additionalProperties"])
        key = self._key(kind.key_type)
        if key:
            node["propertyNames"] = {**key, **node.get("propertyNames", {})}

    def _key(self, kind: types.Type) -> Schema:
        extra: Schema = {}
        while isinstance(kind, types.Metadata):
            extra |= kind.extra_json_schema or {}
            kind = kind.type
        match kind:
            case types.AnyType():
                return {}
            case types.StrType():
                return {}
            case types.IntType():
                return {**extra, **_numeric(kind), "format": formats.INTEGER_KEY, "pattern": formats.INTEGER_PATTERN}
            case types.FloatType():
                return {**extra, **_numeric(kind), "format": formats.NUMBER_KEY, "pattern": formats.NUMBER_PATTERN}
            case types.LiteralType(values=values):
                return _named(list(values))
            case types.EnumType(cls=cls):
                return _named(_enum_values(cls))
            case types.BytesType():
                schema: Schema = {"format": formats.BASE64_KEY}
                self._bytes(kind, schema)
                return {**extra, **schema}
            case (
                types.DateTimeType()
                | types.TimeType()
                | types.DateType()
                | types.TimeDeltaType()
                | types.UUIDType()
                | types.DecimalType()
            ):
                schema = {**extra, **_FIXED_FORMATS.get(type(kind), {})}
                self.announce(kind, schema)
                return schema
        raise UnsupportedType(
            f"a mapping with keys of {type(kind).__name__.removesuffix('Type')} has no JSON: use text, whole numbers, "
            "numbers, dates, times, durations, UUIDs, decimals, bytes, an Enum or a Literal"
        )

    def _date_time(self, kind: types.DateTimeType, node: Schema) -> None:
        if kind.tz is not True:
            node["format"] = formats.DATE_TIME_ANY if kind.tz is None else formats.DATE_TIME_LOCAL
        else:
            node["format"] = "date-time"

    def _time(self, kind: types.TimeType, node: Schema) -> None:
        if kind.tz is not True:
            node["format"] = formats.TIME_ANY if kind.tz is None else formats.TIME_LOCAL
        else:
            node["format"] = "time"

    def _decimal(self, _: types.DecimalType, node: Schema) -> None:
        node["format"] = "decimal"
        node["pattern"] = formats.DECIMAL_PATTERN

    def _duration(self, _: types.TimeDeltaType, node: Schema) -> None:
        node["format"] = formats.DURATION
        node["pattern"] = formats.DURATION_PATTERN

    def _bytes(self, kind: Any, node: Schema) -> None:  # noqa: ANN401 - one of three classes without a common base
        if kind.min_length is not None:
            node[formats.MIN_BYTES] = kind.min_length
        if kind.max_length is not None:
            node[formats.MAX_BYTES] = kind.max_length

    def _float(self, kind: types.FloatType, _: Schema) -> None:
        step = kind.multiple_of
        if step is not None and Fraction(step).denominator > _LARGEST_STEP:
            raise UnsupportedType(
                f"multiple_of={step} of a float: no float is exactly {step}, so even 3 times {step} would be refused; "
                "use decimal.Decimal, or an int of a smaller unit"
            )

    def _enum(self, kind: types.EnumType, node: Schema) -> None:
        if issubclass(kind.cls, enum.Flag):
            node["enum"] = _enum_values(kind.cls)


def _uninitialized(cls: Any) -> str:  # noqa: ANN401 - a class
    """Return a member of a dataclass or an attrs class that its `__init__` does not take; empty if there is none.

    msgspec sets it from JSON all the same.
    """
    if dataclasses.is_dataclass(cls):
        return next((one.name for one in dataclasses.fields(cls) if not one.init), "")
    return next((one.name for one in getattr(cls, "__attrs_attrs__", ()) if not one.init), "")


_FIXED_FORMATS: Final[dict[type[types.Type], Schema]] = {
    types.DateType: {"format": "date"},
    types.UUIDType: {"format": "uuid"},
}


def _numeric(kind: types.IntType | types.FloatType) -> Schema:
    found = {
        "minimum": kind.ge,
        "exclusiveMinimum": kind.gt,
        "maximum": kind.le,
        "exclusiveMaximum": kind.lt,
        "multipleOf": kind.multiple_of,
    }
    return {keyword: value for keyword, value in found.items() if value is not None}


def _named(values: list[Any]) -> Schema:
    """Return the schema of names that are one of these values, all text or all whole numbers."""
    if all(isinstance(value, str) for value in values):
        return {"enum": values}
    if all(type(value) is int for value in values):
        return {"enum": [str(value) for value in values], "format": formats.INTEGER_KEY}
    raise UnsupportedType("the keys of a mapping must be all text or all whole numbers: split the Literal")


def _enum_values(cls: type[enum.Enum]) -> list[Any]:
    """Return the values that decode into an enum: those of a Flag are also its members' combinations.

    Raises:
        UnsupportedType: a Flag has too many combinations to list.
    """
    values = sorted(member.value for member in cls)
    if not issubclass(cls, enum.Flag):
        return values
    if len(values) > _MAX_FLAGS:
        raise UnsupportedType(f"{cls.__name__} is a Flag of more than {_MAX_FLAGS} members: use a list of an Enum")
    combined = {0}
    for value in values:
        combined |= {one | value for one in combined}
    return sorted(value for value in combined if _is_value(cls, value))


def _is_value(cls: type[enum.Enum], value: int) -> bool:
    try:
        cls(value)
    except ValueError:
        return False
    return True


def _finished(node: Schema) -> Schema:
    """Close an object and an array of members, and write a pattern in words that every engine reads alike."""
    if node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
    if node.get("type") == "array" and "prefixItems" in node and node.get("items") is not False:
        node.setdefault("maxItems", len(node["prefixItems"]))
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        try:
            node["pattern"] = portable_pattern(pattern)
        except UnportablePattern as error:
            raise UnsupportedType(f"the pattern {pattern!r} would not mean the same to every reader: {error}") from None
    return node


_OWN_KEYWORDS: Final = frozenset(
    {
        *("$ref", "$defs", "type", "enum", "anyOf", "discriminator", "title", "description", "examples", "default"),
        *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("format", "contentEncoding", "items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        *("properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"),
        *(formats.MIN_BYTES, formats.MAX_BYTES, "deprecated"),
    }
)
_OWN_PATTERNS: Final = frozenset(
    {formats.DECIMAL_PATTERN, formats.DURATION_PATTERN, formats.INTEGER_PATTERN, formats.NUMBER_PATTERN}
)


def _check_engine(schema: Schema) -> None:
    """Compile a schema as the API will, if it has anything that may not compile: loading the engine takes time."""
    nodes = list(schema_nodes(schema))
    foreign = {key for node in nodes for key in node if key not in _OWN_KEYWORDS and not key.startswith("x-")}
    patterns = {node["pattern"] for node in nodes if isinstance(node.get("pattern"), str)} - _OWN_PATTERNS
    if not (foreign - {"pattern"} or patterns):
        return
    from opstream_schemas.action_types.schema_engine import compile_schema, is_pattern

    for pattern in sorted(patterns):
        if not is_pattern(pattern):
            raise UnsupportedType(
                f"the API's engine can't compile the pattern {pattern!r}: it is too large, or has words that only "
                "Python knows; write a simpler one"
            )
    try:
        compile_schema(schema)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedType(f"its extra_json_schema is no JSON Schema (2020-12): {reason}") from error
