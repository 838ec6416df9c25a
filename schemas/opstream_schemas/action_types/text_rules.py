"""What msgspec's decoder does not check of texts, or checks without a bound, checked by the schema (docs/adr/0030).

- Python's `re` holds the interpreter's lock and may take exponential time, and msgspec runs patterns with it. So the
  API's engine, which is bounded, judges each text first.
- Two names of a mapping may be one key (`1` and `1.0` of a float). The decoder keeps the last one and drops the other.
- The decoder takes a UUID without hyphens, which `format: uuid` is not. Results are checked for that.
- The decoder rounds a time to microseconds. What is less than half of one before midnight becomes 00:00:00.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from . import schema_formats as formats
from .schema_nodes import Schema, schema_nodes
from .type_decoder import DECODED_FORMATS, schema_decoder

_REF: Final = "#/$defs/"
_TIMES: Final = frozenset({"time", formats.TIME_ANY, formats.TIME_LOCAL})
_UUID: Final = frozenset({"uuid"})
_UUID_LENGTH: Final = 36
"""Of one with hyphens."""
_LAST_MICROSECOND: Final = "23:59:59.999999"
_ROUNDED_UP: Final = frozenset("56789")
"""Digits after the last microsecond that msgspec rounds up."""
_KINDS: Final[dict[type, frozenset[str]]] = {
    str: frozenset({"string"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer", "number"}),
    float: frozenset({"number"}),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
    type(None): frozenset({"null"}),
}
_STEPS_ENDED: Final = "backtracking"
"""In what the engine says of a text for which a pattern takes more steps than it may."""


class _Fault:
    """What is wrong with a value, and where, from the inside out."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.steps: list[str] = []
        self.is_name = False

    def within(self, step: str) -> _Fault:
        self.steps.append(step)
        return self

    def __str__(self) -> str:
        path = "$" + "".join(reversed(self.steps))
        return f"{self.message} - at `{f'key` in `{path}' if self.is_name else path}`"


_Check = Callable[[Any], "_Fault | None"]


class TextRules:
    """Checks the texts of values that one schema describes.

    Args:
        schema: of an action's input or result.
        has_patterns: it has patterns that are to be checked.
        has_keys: it has mappings whose keys have several spellings.
        has_uuids: it has UUIDs that are to be checked.
    """

    def __init__(self, schema: Schema, *, has_patterns: bool, has_keys: bool, has_uuids: bool) -> None:
        self.has_patterns = has_patterns
        self._has_uuids = has_uuids
        self._has_more_than_times = has_patterns or has_keys or has_uuids
        self._schema = schema
        self._check: _Check | None = None

    def check(self, value: Any) -> None:  # noqa: ANN401 - JSON
        """Check a decoded value.

        Raises:
            msgspec.ValidationError: a text breaks a rule; the message says where, as those of msgspec do.
        """
        if self._check is None:
            self._check = _Compiler(self._schema, with_patterns=self.has_patterns, with_uuids=self._has_uuids).compile()
        fault = self._check(value)
        if fault is not None:
            raise msgspec.ValidationError(str(fault))

    def check_document(self, document: bytes | msgspec.Raw) -> None:
        """Check JSON.

        Raises:
            msgspec.ValidationError: as `check` does.
            msgspec.DecodeError: it is no JSON.
        """
        text = bytes(document)
        if self._has_more_than_times or _LAST_MICROSECOND.encode() in text or b"\\" in text:
            self.check(msgspec.json.decode(text))


def find_text_rules(schema: Schema, *, with_patterns: bool = True, with_uuids: bool = False) -> TextRules | None:
    """Return the rules of a schema; None if it has none, so that most types cost nothing.

    Args:
        schema: of an action's input or result.
        with_patterns: False if another part checks them.
        with_uuids: True if no other part checks that UUIDs have hyphens.
    """
    nodes = list(schema_nodes(schema))
    has_patterns = with_patterns and any(map(_has_pattern, nodes))
    has_keys = any(map(_has_spellings, nodes))
    has_uuids = with_uuids and any(_has_format(node, _UUID) for node in nodes)
    if has_patterns or has_keys or has_uuids or any(_has_format(node, _TIMES) for node in nodes):
        return TextRules(schema, has_patterns=has_patterns, has_keys=has_keys, has_uuids=has_uuids)
    return None


def _has_format(node: Schema, wanted: frozenset[str]) -> bool:
    name = node.get("format")
    return isinstance(name, str) and name in wanted


def _has_pattern(node: Schema) -> bool:
    return isinstance(node.get("pattern"), str) and not _has_format(node, DECODED_FORMATS)


def _has_spellings(node: Schema) -> bool:
    names = node.get("propertyNames")
    return isinstance(names, dict) and _has_format(names, DECODED_FORMATS) and "enum" not in names


class _Compiler:
    """Makes a function of each node of a schema that has a rule in it. Others are not walked."""

    def __init__(self, schema: Schema, *, with_patterns: bool, with_uuids: bool) -> None:
        self._schema = schema
        self._defs: dict[str, Any] = schema.get("$defs", {})
        self._with_patterns = with_patterns
        self._with_uuids = with_uuids
        self._references: dict[str, _Check | None] = {}
        self._open: set[str] = set()

    def compile(self) -> _Check:
        return self._node(self._schema) or (lambda _: None)

    def _node(self, node: Any) -> _Check | None:  # noqa: ANN401 - JSON
        if not isinstance(node, dict):
            return None
        if isinstance(node.get("$ref"), str):
            return self._reference(node["$ref"])
        checks = [one for one in (self._text(node), self._object(node), self._array(node), self._union(node)) if one]
        return _all(checks)

    def _reference(self, reference: str) -> _Check | None:
        if reference in self._open:  # recursive: it is known once its definition is compiled
            return lambda value: None if (check := self._references[reference]) is None else check(value)
        if reference not in self._references:
            self._open.add(reference)
            self._references[reference] = self._node(self._resolved({"$ref": reference}))
            self._open.discard(reference)
        return self._references[reference]

    def _resolved(self, node: Any) -> Any:  # noqa: ANN401 - JSON
        reference = node.get("$ref") if isinstance(node, dict) else None
        return self._defs.get(reference.removeprefix(_REF)) if isinstance(reference, str) else node

    def _text(self, node: Schema) -> _Check | None:
        checks: list[_Check] = [_check_time] if _has_format(node, _TIMES) else []
        if self._with_patterns and _has_pattern(node):
            checks.append(_pattern_check(node["pattern"]))
        if self._with_uuids and _has_format(node, _UUID):
            checks.append(_check_uuid)
        both = _all(checks)
        return None if both is None else lambda value: both(value) if isinstance(value, str) else None

    def _object(self, node: Schema) -> _Check | None:
        properties = node.get("properties", {})
        members = {name: inner for name, one in properties.items() if (inner := self._node(one)) is not None}
        other = self._node(node.get("additionalProperties"))
        names = self._names(node)

        def check(value: Any) -> _Fault | None:  # noqa: ANN401 - JSON
            if not isinstance(value, dict):
                return None
            if names is not None and (fault := names(value)) is not None:
                return fault
            for name, inner in members.items():
                if name in value and (fault := inner(value[name])) is not None:
                    return fault.within(_step(name))
            if other is not None:
                for name, one in value.items():
                    if name not in properties and (fault := other(one)) is not None:
                        return fault.within(_step(name))
            return None

        return check if members or other or names else None

    def _names(self, node: Schema) -> _Check | None:
        key = node.get("propertyNames")
        if not isinstance(key, dict):
            return None
        text = self._text(key)
        distinct = _distinct_check(key) if _has_spellings(node) else None

        def check(value: dict[str, Any]) -> _Fault | None:
            if text is not None:
                for name in value:
                    if (fault := text(name)) is not None:
                        fault.is_name = True
                        return fault
            return None if distinct is None else distinct(value)

        return check if text or distinct else None

    def _array(self, node: Schema) -> _Check | None:
        prefix = node.get("prefixItems")
        first = [self._node(one) for one in prefix] if isinstance(prefix, list) else []
        other = self._node(node.get("items"))

        def check(value: Any) -> _Fault | None:  # noqa: ANN401 - JSON
            if not isinstance(value, list):
                return None
            for number, item in enumerate(value):
                inner = first[number] if number < len(first) else other
                if inner is not None and (fault := inner(item)) is not None:
                    return fault.within(f"[{number}]")
            return None

        return check if any(first) or other else None

    def _union(self, node: Schema) -> _Check | None:
        options = node.get("anyOf")
        if not isinstance(options, list):
            return None
        known = [(self._resolved(one), self._node(one)) for one in _flat(options)]

        def check(value: Any) -> _Fault | None:  # noqa: ANN401 - JSON
            fitting = [one for one in known if _may_take(one[0], value)]
            if len(fitting) > 1:
                fitting = [one for one in fitting if _has_tag(one[0], value)]
            # Several are left only of a union that was written by hand. Then msgspec decodes no type there.
            inner = fitting[0][1] if len(fitting) == 1 else None
            return None if inner is None else inner(value)

        return check if any(one for _, one in known) else None


def _all(checks: list[_Check]) -> _Check | None:
    if len(checks) < 2:
        return checks[0] if checks else None

    def check(value: Any) -> _Fault | None:  # noqa: ANN401 - JSON
        return next((fault for one in checks if (fault := one(value)) is not None), None)

    return check


def _flat(options: Iterable[Any]) -> Iterable[Any]:
    for option in options:
        inner = option.get("anyOf") if isinstance(option, dict) else None
        if isinstance(inner, list):
            yield from _flat(inner)
        else:
            yield option


def _may_take(node: Any, value: Any) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(node, dict):
        return True
    if isinstance(node.get("enum"), list):
        return value in node["enum"]
    kind = node.get("type")
    return kind in _KINDS[type(value)] if isinstance(kind, str) else True


def _has_tag(node: Any, value: Any) -> bool:  # noqa: ANN401 - JSON
    """Return True if the members of a value have the only values that an option takes there."""
    if not isinstance(node, dict):
        return True
    if isinstance(value, dict):
        properties = node.get("properties", {})
        tags = {name: _fixed(properties.get(name)) for name in node.get("required", ())}
        return all(value.get(name) in values for name, values in tags.items() if values)
    items = node.get("prefixItems")
    values = _fixed(items[0]) if isinstance(items, list) and items else []
    return not values or (bool(value) and value[0] in values)


def _fixed(node: Any) -> list[Any]:  # noqa: ANN401 - JSON
    values = node.get("enum") if isinstance(node, dict) else None
    return values if isinstance(values, list) else []


def _step(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{json.dumps(name, ensure_ascii=False)}]"


def _check_time(text: str) -> _Fault | None:
    after = len(_LAST_MICROSECOND)
    if text.startswith(_LAST_MICROSECOND) and text[after : after + 1] in _ROUNDED_UP:
        return _Fault("Invalid RFC3339 encoded time: rounded to microseconds it is 00:00:00 of the next day")
    return None


def _check_uuid(text: str) -> _Fault | None:
    return None if len(text) == _UUID_LENGTH else _Fault("Invalid UUID: write it with its four hyphens")


def _pattern_check(pattern: str) -> _Check:
    from .schema_engine import compile_schema

    validator = compile_schema({"pattern": pattern})

    def check(text: str) -> _Fault | None:
        if validator.is_valid(text):
            return None
        if any(_STEPS_ENDED in error.message for error in validator.iter_errors(text)):
            return _Fault(f"the pattern {pattern!r} takes too many steps on this text: write a simpler one")
        return _Fault(f"Expected `str` matching regex {pattern!r}")

    return check


def _distinct_check(names: Schema) -> _Check | None:
    decode = schema_decoder({"type": "object", "additionalProperties": {"type": "null"}, "propertyNames": names})
    if decode is None:
        return None

    def check(value: dict[str, Any]) -> _Fault | None:
        try:
            if len(decode(msgspec.json.encode(dict.fromkeys(value)))) == len(value):
                return None
        except msgspec.ValidationError:
            return None  # a name is no key, which the decoder says better
        seen: dict[Any, str] = {}
        for name in value:
            (key,) = decode(msgspec.json.encode({name: None}))
            first = seen.setdefault(key, name)
            if first != name:
                both = f"{json.dumps(first, ensure_ascii=False)} and {json.dumps(name, ensure_ascii=False)}"
                return _Fault(f"the names {both} are the same key: send one of them").within(_step(name))
        return None

    return check
