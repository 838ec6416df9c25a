"""Finds channels and messages in an AsyncAPI document; also actions whose schemas are awkward to convert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import jsonschema_rs
import msgspec

from opstream_api.asyncapi.draft7 import to_draft7
from opstream_api.openapi.schema_components import RoleSchema, to_components
from opstream_schemas.action_spec import ActionSpec

Json = dict[str, Any]


def as_sent(document: Json) -> Json:
    """A document as clients see it: through JSON."""
    sent: Json = msgspec.json.decode(msgspec.json.encode(document))
    return sent


def resolved(root: Json, node: Json) -> Json:
    """A part of a document, with its reference resolved."""
    if "$ref" not in node:
        return node
    found: Any = root
    for step in node["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return resolved(root, found)


def references(node: Any) -> Iterator[str]:
    """All `$ref`s below a part of a document, without values that only look like one."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)


def validator(root: Json, schema: Json) -> jsonschema_rs.Draft7Validator:
    """A validator for a schema of the document: draft-07, with formats."""
    whole = {"allOf": [schema], "components": root["components"]}
    return jsonschema_rs.Draft7Validator(whole, validate_formats=True, offline=True)


def message(root: Json, channel: str) -> Json:
    """The only message of a channel, merged with its traits."""
    (one,) = root["channels"][channel]["messages"].values()
    bare = resolved(root, one)
    for trait in bare["traits"]:
        bare = {**resolved(root, trait), **bare}
    return bare


def as_component(schema: Json) -> tuple[Json, Json]:
    """The reference to an action's schema in the document, and a root with its components."""
    found = to_components([RoleSchema("a.b", "input", to_draft7(schema))])["a.b.input"]
    return found.reference, {"components": {"schemas": found.components}}


def is_at(root: Json, channel: str, subject: str) -> bool:
    """Return True if a subject matches a channel's address and the patterns of its parameters."""
    described = root["channels"][channel]
    expression = re.escape(described["address"])
    for name, parameter in described["parameters"].items():
        pattern = resolved(root, parameter)["x-pattern"].removeprefix("^").removesuffix("$")
        expression = expression.replace(re.escape(f"{{{name}}}"), f"(?:{pattern})")
    return re.fullmatch(expression, subject) is not None


def channels_of(root: Json, subject: str) -> list[str]:
    """All channels that a subject belongs to."""
    return [channel for channel in root["channels"] if is_at(root, channel, subject)]


def is_filtered(pattern: str, subject: str) -> bool:
    """Return True if a NATS subject filter without `>` matches a subject."""
    tokens, asked = subject.split("."), pattern.split(".")
    return len(tokens) == len(asked) and all(one in ("*", token) for one, token in zip(asked, tokens, strict=True))


def _chain(length: int) -> Json:
    schema: Json = {"type": "integer"}
    for _ in range(length):
        schema = {"properties": {"a": schema}}
    return schema


CARRIED: Final[dict[str, Json]] = {
    "tree": {
        "$ref": "#/$defs/T",
        "$defs": {
            "T": {
                "type": "object",
                "properties": {
                    "branches": {"type": "array", "items": {"$ref": "#/$defs/T"}},
                    "parent": {"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}], "default": None},
                },
            }
        },
    },
    "itself": {"$ref": "#"},
    "loop": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
    "beside a reference": {"$ref": "#/$defs/n", "minimum": 5, "$defs": {"n": {"type": "integer"}}},
    "odd definition": {"$defs": {"a/b,c@": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/a~1b,c@"}}},
    "odd property": {"properties": {"x y {z}?#": {"type": "integer"}}, "required": ["x y {z}?#"]},
    "the document's words": {"type": "object", "properties": {"payload": True, "schemaFormat": {"const": "x"}}},
    "an example like a reference": {"properties": {"a": {"default": {"$ref": "#/$defs/x"}}}},
    "OpenAPI's discriminator": {"discriminator": {"propertyName": "t"}, "anyOf": [{"type": "object"}]},
    "annotations": {"type": "object", "externalDocs": 3, "x-foo": 1, "$comment": "c", "deprecated": True},
    "dependencies": {
        "properties": {"a": True, "b": {"type": "integer"}},
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"b": {"required": ["c"]}},
    },
    "a condition": {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "integer"}},
    "patterns": {"patternProperties": {"^[a-z]+$": {"type": "string", "pattern": r"^(?:a|b)\d{2,}\.(?=x)x$"}}},
    "JavaScript's members": {"properties": {"toString": {"type": "integer"}, "constructor": {"type": "string"}}},
    "values": {"enum": [{"a": 1}, None, [1]]},
    "null": {"const": None},
    "nothing": {"not": {}},
    "deep": _chain(60),
}
"""Schemas that mean the same in the document."""
LOST: Final[dict[str, Json]] = {
    "elsewhere": {"$ref": "https://books.example/x"},
    "nowhere": {"$ref": "#/$defs/nobody"},
    "a step too deep": {"$ref": "#/properties/a", "properties": {"a": {"type": "integer"}}},
    "no type": {"type": "nonsense"},
    "no type, below": {"$ref": "#/$defs/a", "$defs": {"a": {"minLength": "x"}}},
    "no schema": {"properties": {"a": 3}},
    "a constant like a reference": {"const": {"$ref": "#/x"}},
    "a property like a reference": {"properties": {"$ref": {"type": "string"}}},
    "__proto__": {"properties": {"__proto__": {"type": "integer"}}},
    "Python's pattern": {"type": "string", "pattern": r"^(?P<a>x)\Z"},
    "a possessive pattern": {"type": "string", "pattern": "a++"},
    "broken pattern": {"type": "string", "pattern": "("},
    "pattern beyond the first plane": {"type": "string", "pattern": "[\U0001f600-\U0001f64f]"},
    "unevaluated": {"properties": {"a": True}, "unevaluatedProperties": False},
    "counted": {"contains": {"const": 1}, "minContains": 2},
    "dynamic": {"$dynamicRef": "#a", "$defs": {"a": {"$dynamicAnchor": "a"}}},
    "both dependencies": {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {"required": ["c"]}}},
}
"""Schemas that draft-07, JavaScript or the official parser can't express, or that are not schemas."""


def awkward_actions() -> list[ActionSpec]:
    """An action for each of these schemas."""
    return [
        ActionSpec(
            resource="awkward",
            action=f"number-{number}",
            summary=f"{name}: *odd*\n\n```\n{{braces}}",
            action_version=number + 1,
            input_schema=schema,
            result_schema=schema,
        )
        for number, (name, schema) in enumerate({**CARRIED, **LOST}.items())
    ]
