"""What is wrong with an input that its action's schema refuses, found in bounded time.

jsonschema-rs builds all errors before it hands out the first, and for a union those of each branch, also of the unions
inside of them. So 400 KB of wrong items would hold the event loop for seconds, and 20 nested objects of a tagged union
for hours. Here every union of the schema is rewritten into a choice by the value's type or tag, which has one branch.
Several problems are listed only if the input has few values.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

import jsonschema_rs

from opstream_api.errors import MESSAGE_LIMIT, TARGET_LIMIT
from opstream_schemas.action_types import schema_formats as formats
from opstream_schemas.action_types.schema_engine import MASK, compile_schema
from opstream_schemas.action_types.schema_nodes import Schema
from opstream_schemas.errors import ErrorCode
from opstream_schemas.status_monitor import ErrorDetail
from opstream_schemas.text import truncate_text

MAX_DETAILS: Final = 10
"""Problems that one error lists."""
LISTED_UP_TO: Final = 2_000
"""Problems are listed (in 10 to 20 ms) if the input can have so many at most. Else only the first one is named."""

_NO_BRANCH: Final = f"{MASK} fits none of the alternatives that the schema allows here"
_KIND: Final = jsonschema_rs.ValidationErrorKind
_KEYWORDS_PER_VALUE: Final = 3
"""Keywords that one value can break, besides `required`."""

# Where a schema has further schemas. Everything else in it is data.
_ONE: Final = frozenset(
    {
        *("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
_MANY: Final = frozenset({"allOf", "prefixItems"})
_NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_UNIONS: Final = ("anyOf", "oneOf")

_NUMBER: Final = "number"
_INTEGER: Final = "integer"
_TYPES: Final = ("null", "boolean", _INTEGER, _NUMBER, "string", "array", "object")
_OBJECT: Final = frozenset({"object"})
_OWN_PATTERNS: Final[Mapping[str, str]] = {
    formats.INTEGER_PATTERN: "is no whole number",
    formats.NUMBER_PATTERN: "is no number",
    formats.DECIMAL_PATTERN: "is no decimal number, as in 1.50",
}
"""What a pattern of opstream's own means."""
_REPEATED_VALUE: Final = re.compile(r"^(Invalid (?:enum )?value) .*$", re.DOTALL)
_JSON_TYPES: Final = MappingProxyType({"int": _INTEGER, "float": _NUMBER, "str": "string", "bool": "boolean"})
_PYTHON_TYPE: Final = re.compile(rf"\b(?:{'|'.join(_JSON_TYPES)})\b")
_QUOTED: Final = re.compile(r"`[a-z |]+`")
_NAME_PLACE: Final = "key` in `"


class InputProblems:
    """Finds what is wrong with inputs that one schema refuses.

    Args:
        schema: a valid schema.
    """

    def __init__(self, schema: Schema) -> None:
        chosen = _UnionRewriter(schema).rewrite(schema)
        self._validator = compile_schema(chosen)
        self._most_required = _most_required(schema)

    def find(self, value: Any) -> list[ErrorDetail]:  # noqa: ANN401 - JSON
        """Return up to `MAX_DETAILS` problems of an input that was refused, at least one."""
        if _can_have_more_problems(value, LISTED_UP_TO, self._most_required):
            try:
                self._validator.validate(value)
            except jsonschema_rs.ValidationError as error:
                return [_problem(error)]
            return [_detail(_NO_BRANCH, [])]
        errors = list(islice(self._validator.iter_errors(value), MAX_DETAILS))
        refused_names = [_error_path(error) for error in errors if isinstance(error.kind, _KIND.PropertyNames)]
        # What a member of a refused name holds is beside the point.
        found = [_problem(error) for error in errors if not _is_below(error, refused_names)]
        # A `oneOf` of which two branches match is no problem of the rewritten schema.
        return found or [_detail(_NO_BRANCH, [])]


def _can_have_more_problems(value: Any, limit: int, most_required: int) -> bool:  # noqa: ANN401 - JSON
    """Return True if an input of this shape can have more than `limit` problems. It stops counting there."""
    left = limit
    rest: list[Any] = [value]
    while rest:
        one = rest.pop()
        left -= _KEYWORDS_PER_VALUE
        if isinstance(one, dict):
            left -= most_required
            children: Iterable[Any] = one.values()
        elif isinstance(one, list):
            children = one
        else:
            continue
        if left < len(one) * _KEYWORDS_PER_VALUE:
            return True
        rest += children
    return left < 0


def _most_required(schema: Any) -> int:  # noqa: ANN401 - JSON
    """Return how many members an object of this schema can lack at once."""
    if not isinstance(schema, dict):
        return 0
    own = len(schema.get("required", ()))
    return max([own, *(_most_required(child) for child in _children(schema))])


def _children(schema: Schema) -> Iterator[Any]:
    for keyword, value in schema.items():
        if keyword in _ONE:
            yield value
        elif keyword in _MANY or keyword in _UNIONS:
            yield from value
        elif keyword in _NAMED:
            yield from value.values()


class _UnionRewriter:
    """Rewrites the unions of a schema into choices of one branch.

    Args:
        root: the whole schema, for its references.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root

    def rewrite(self, schema: Any) -> Any:  # noqa: ANN401 - JSON
        """Return a schema that refuses what `schema` refuses, but for a `oneOf` of which several branches match."""
        if not isinstance(schema, dict):
            return schema
        found: Schema = {}
        choices: list[Any] = []
        for keyword, value in schema.items():
            if keyword in _UNIONS:
                choices += self._choices(self._flatten(value))
            elif keyword in _ONE:
                found[keyword] = self.rewrite(value)
            elif keyword in _MANY:
                found[keyword] = [self.rewrite(one) for one in value]
            elif keyword in _NAMED:
                found[keyword] = {name: self.rewrite(one) for name, one in value.items()}
            else:
                found[keyword] = value
        if found.get("items") is False and found.get("maxItems") == len(found.get("prefixItems", ())):
            del found["items"]  # `maxItems` says the same in better words
        if choices:
            found["allOf"] = [*found.get("allOf", ()), *choices]
        return found

    def _flatten(self, branches: Iterable[Any]) -> list[Any]:
        """Return the branches, with those of a branch that is only a union itself in its place."""
        found: list[Any] = []
        for branch in branches:
            inner = branch.get("anyOf") if isinstance(branch, dict) else None
            if inner is not None and not (branch.keys() - {"anyOf", "discriminator", "title", "description"}):
                found += self._flatten(inner)
            else:
                found.append(branch)
        return found

    def _choices(self, branches: Sequence[Any]) -> Iterator[Schema]:
        admitted = [self._types(branch, ()) for branch in branches]
        by_candidates: dict[tuple[int, ...], list[str]] = {}
        for name in _TYPES:
            candidates = tuple(index for index, types in enumerate(admitted) if name in types)
            by_candidates.setdefault(candidates, []).append(name)
        for candidates, names in by_candidates.items():
            if candidates:
                yield {"if": _of_types(names), "then": self._choice([branches[index] for index in candidates])}
        if () in by_candidates:
            # As the branches name them, so that the message does, too.
            named = [name for branch in branches for name in self._named_types(branch, ())]
            yield {"type": list(dict.fromkeys(named))} if named else {"not": {}}

    def _choice(self, candidates: Sequence[Any]) -> Any:  # noqa: ANN401 - JSON
        if len(candidates) == 1:
            return self.rewrite(candidates[0])
        tagged = self._by_tag(candidates)
        if tagged is not None:
            return tagged
        # It can't be known which one was meant. A double negation is only asked whether it holds, which builds no
        # errors of the branches.
        return {"not": {"not": {"anyOf": [self.rewrite(one) for one in candidates]}}}

    def _by_tag(self, candidates: Sequence[Any]) -> Schema | None:
        """Return the choice by the value of a member that each candidate requires, and that differs in each."""
        tags = [self._tags(one) for one in candidates]
        for name in tags[0]:
            values = [one[name] for one in tags if name in one]
            flat = [repr(value) for allowed in values for value in allowed]
            if len(values) < len(candidates) or len(set(flat)) < len(flat):
                continue
            tests = [{"required": [name], "properties": {name: {"enum": allowed}}} for allowed in values]
            known = [value for allowed in values for value in allowed]
            return {
                "type": "object",
                "required": [name],
                "properties": {name: {"enum": known}},
                "allOf": [{"if": test, "then": self.rewrite(one)} for test, one in zip(tests, candidates, strict=True)],
            }
        return None

    def _tags(self, branch: Any) -> Mapping[str, list[Any]]:  # noqa: ANN401 - JSON
        """Return the required members of a branch that have one of a few fixed values, which are text or numbers."""
        branch = self._resolve(branch)
        if self._types(branch, ()) != _OBJECT:
            return {}
        found: dict[str, list[Any]] = {}
        for name in branch.get("required", ()):
            member = branch.get("properties", {}).get(name)
            allowed = _fixed_values(member) if isinstance(member, dict) else None
            if allowed and all(isinstance(value, str | int) for value in allowed):
                found[name] = allowed
        return found

    def _resolve(self, schema: Any) -> Any:  # noqa: ANN401 - JSON
        """Return what a schema that is a reference refers to. It follows a chain of references once around."""
        seen: set[str] = set()
        while isinstance(schema, dict) and isinstance(ref := schema.get("$ref"), str) and ref not in seen:
            seen.add(ref)
            schema = self._follow(ref)
        return schema

    def _follow(self, ref: str) -> Any:  # noqa: ANN401 - JSON
        place: Any = self._root
        for step in ref.removeprefix("#").split("/")[1:] if ref.startswith("#") else ["", ""]:
            place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        return {} if place is None else place

    def _types(self, schema: Any, seen: tuple[str, ...]) -> frozenset[str]:  # noqa: ANN401 - JSON
        """Return the types of the values that a schema may take: all of those that it takes, and perhaps more."""
        names = set(self._named_types(schema, seen)) or set(_TYPES)
        return frozenset(names | {_INTEGER} if _NUMBER in names else names)

    def _named_types(self, schema: Any, seen: tuple[str, ...]) -> list[str]:  # noqa: ANN401 - JSON
        """Return the types that a schema names; none if it names none."""
        if not isinstance(schema, dict):
            return []
        named = schema.get("type")
        if named is not None:
            return [named] if isinstance(named, str) else list(named)
        if (values := _fixed_values(schema)) is not None:
            return list(dict.fromkeys(_type_of(value) for value in values))
        ref = schema.get("$ref")
        if isinstance(ref, str):
            return [] if ref in seen else self._named_types(self._follow(ref), (*seen, ref))
        branches = [self._named_types(one, seen) for keyword in _UNIONS for one in schema.get(keyword, ())]
        return [name for one in branches for name in one] if all(branches) else []


def _of_types(names: Sequence[str]) -> Schema:
    if _NUMBER in names and _INTEGER not in names:
        return {"type": [*names], "not": {"type": _INTEGER}}
    return {"type": [*names]}


def _fixed_values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


_TYPE_OF: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: _INTEGER,
    float: _NUMBER,
    str: "string",
    list: "array",
    dict: "object",
}


def _type_of(value: Any) -> str:  # noqa: ANN401 - JSON
    return _TYPE_OF[type(value)]


def _problem(error: jsonschema_rs.ValidationError) -> ErrorDetail:
    kind = error.kind
    message = error.message
    if isinstance(kind, _KIND.PropertyNames):
        message = f"the name {message}"
    for pattern, words in _OWN_PATTERNS.items():
        message = message.replace(f'does not match "{pattern}"', words)
    if isinstance(kind, _KIND.Not | _KIND.AnyOf | _KIND.OneOfNotValid):
        message = _NO_BRANCH
    elif isinstance(kind, _KIND.Type) and len(kind.types) > 1:
        names = sorted(kind.types, key="null".__eq__)
        message = f"{MASK} is not of type {' or '.join(names)}"
    return _detail(message, _error_path(error))


def _is_below(error: jsonschema_rs.ValidationError, paths: list[list[str | int]]) -> bool:
    path = list(error.instance_path)
    return any(path[: len(one)] == one for one in paths)


def _error_path(error: jsonschema_rs.ValidationError) -> list[str | int]:
    path = list(error.instance_path)
    if isinstance(error.kind, _KIND.Required):
        path.append(error.kind.property)
    elif isinstance(error.kind, _KIND.AdditionalProperties) and error.kind.unexpected:
        path.append(error.kind.unexpected[0])
    elif isinstance(error.kind, _KIND.PropertyNames):
        path.append(str(error.kind.error.instance))
    return path


def decoding_problem(error: Exception) -> ErrorDetail:
    """Return the problem that a decoder of msgspec found, without the value that msgspec may repeat."""
    message, _, place = str(error).partition(" - at `")
    message = _QUOTED.sub(_in_json, _REPEATED_VALUE.sub(r"\1", message))
    if place.startswith(_NAME_PLACE):
        message = f"the name of a member: {message}"
        place = place.removeprefix(_NAME_PLACE)
    if message.startswith("Expected `integer") and message.endswith("got `number`"):
        message += ": write a whole number without a fraction or an exponent"
    target = place.removesuffix("`").removeprefix("$").removeprefix(".")
    return ErrorDetail(
        code=ErrorCode.INVALID_INPUT,
        message=truncate_text(message, MESSAGE_LIMIT // 2),
        target=truncate_text(target, TARGET_LIMIT),
    )


def _in_json(quoted: re.Match[str]) -> str:
    """Return types in the words of JSON; msgspec names them in Python's."""
    return _PYTHON_TYPE.sub(lambda found: _JSON_TYPES[found[0]], quoted[0])


def _detail(message: str, path: Sequence[str | int]) -> ErrorDetail:
    return ErrorDetail(
        code=ErrorCode.INVALID_INPUT,
        message=truncate_text(message, MESSAGE_LIMIT // 2),
        target=truncate_text(format_target(path), TARGET_LIMIT),
    )


def format_target(path: Sequence[str | int]) -> str:
    """Format a path into the input: `files[0].hash`; a key that is no identifier is quoted: `files["a b"]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif step.isidentifier():
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return "".join(parts)
