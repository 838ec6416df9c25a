"""JSON Schemas of actions as components of a document: one component a type, with references to it (ADR 0035). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from .component_names import UsedType, component_key, component_names
from .shared import SCHEMAS, Json

_DEFS: Final = "#/$defs/"
_LITERALS: Final = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are not schemas."""
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords whose members are schemas under names of the author's choice, which are not keywords."""
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})

Rewriter = Callable[[str], str]


class RoleSchema(msgspec.Struct, frozen=True):
    """The schema of an action's input or result."""

    action: str
    """`resource.action`."""
    role: str
    """`input` or `result`."""
    schema: Mapping[str, Any]
    """JSON Schema 2020-12 or draft-07, with its types in `$defs`."""

    @property
    def name(self) -> str:
        """Return the name of its component. No action has a `.` in its names, so names can't collide."""
        return f"{self.action}.{self.role}"

    @property
    def definitions(self) -> Mapping[str, Any]:
        """Return the types that the schema refers to, by their keys."""
        found: Mapping[str, Any] = self.schema.get("$defs", {})
        return found


class SchemaComponents(msgspec.Struct, frozen=True):
    """A schema as components: itself, and the types in its `$defs`."""

    reference: Json
    """The reference to the schema."""
    components: Json


def to_components(schemas: Iterable[RoleSchema], reserved: Collection[str] = ()) -> dict[str, SchemaComponents]:
    """Return the components of each schema, by the schema's name.

    A type that several schemas have is one component, the same in the components of each. A schema that is no more than
    a reference to a type has no component of its own, because generators make a second class of the type for it. All
    references, also those of discriminators, start at the document's root.

    Args:
        schemas: those of all actions of the document, since a type's name must be unique among all of them.
        reserved: names of the document's other schemas.
    """
    all_schemas = list(schemas)
    digests = {(one.name, key): _digest(one, key) for one in all_schemas for key in one.definitions}
    used = [
        UsedType(digests[one.name, key], _title(schema) or key, one.action, one.role, key)
        for one in all_schemas
        for key, schema in one.definitions.items()
    ]
    names = component_names(used, [*reserved, *(f"{one.action}.{role}" for one in all_schemas for role in _ROLES)])
    return {
        one.name: _components(one, {key: names[digests[one.name, key]] for key in one.definitions})
        for one in all_schemas
    }


_ROLES: Final = ("input", "result", "monitor")
"""What components of an action itself are called, whether or not it has one."""


def _components(one: RoleSchema, names: Mapping[str, str]) -> SchemaComponents:
    def rewrite(reference: str) -> str:
        return _component_reference(reference, one.name, names)

    # `$id` would be a new base for references, and the dialect is the document's own.
    top = {key: value for key, value in one.schema.items() if key not in {"$defs", "$id", "$schema"}}
    types: Json = {}
    for key, schema in one.definitions.items():
        types[names[key]] = _rewritten(schema, rewrite)
        if title := _title(schema):
            # Code generators name a class by the title, so two components with one title are one class, or an error.
            types[names[key]]["title"] = title if names[key] == component_key(title) else names[key]
    root = _rewritten(top, rewrite)
    if root.keys() == {"$ref"} and root["$ref"].removeprefix(SCHEMAS) in types:
        return SchemaComponents(root, types)
    return SchemaComponents({"$ref": SCHEMAS + one.name}, {one.name: root, **types})


def _digest(one: RoleSchema, key: str) -> str:
    """Return a hash that is equal for equal types of different schemas.

    The types that it refers to are part of it, whatever keys they have here. A type that refers to the root of its
    schema belongs to that action alone.
    """
    order = [key]

    def numbered(reference: str) -> str:
        target, rest = _split(reference)
        if target is None or target not in one.definitions:
            return f"{one.name}{reference}" if reference.startswith("#") else reference
        if target not in order:
            order.append(target)
        return f"{order.index(target)}{rest}"

    contents: list[Any] = []
    for name in order:  # it grows in the loop
        schema = one.definitions[name]
        contents.append([_title(schema), _rewritten(schema, numbered)])
    return hashlib.sha256(msgspec.json.encode(contents)).hexdigest()


def _component_reference(reference: str, root: str, names: Mapping[str, str]) -> str:
    key, rest = _split(reference)
    if key is not None and key in names:
        return f"{SCHEMAS}{names[key]}{rest}"
    if reference.startswith(_DEFS):
        return f"{SCHEMAS}{root}{rest}"  # it leads nowhere in the action's own schema
    return f"{SCHEMAS}{root}{reference[1:]}" if reference.startswith("#") else reference


def _split(reference: str) -> tuple[str | None, str]:
    """Return the key of the type that a reference leads to, None for another reference; and the rest of the path."""
    if not reference.startswith(_DEFS):
        return None, ""
    key, slash, rest = reference.removeprefix(_DEFS).partition("/")
    return key.replace("~1", "/").replace("~0", "~"), slash + rest


def _rewritten(node: Any, rewrite: Rewriter) -> Any:  # noqa: ANN401 - JSON
    """Return a schema with other references, `$ref` and its like and the mappings of discriminators.

    It is also written so that code generators can read it, with the same meaning.
    """
    if isinstance(node, list):
        return [_rewritten(item, rewrite) for item in node]
    if not isinstance(node, dict):
        return node
    rewritten: Json = {}
    for key, value in node.items():
        if key in _REFERENCES and isinstance(value, str):
            rewritten[key] = rewrite(value)
        elif key in _LITERALS:
            rewritten[key] = value
        elif key in _MAPS and isinstance(value, dict):
            rewritten[key] = {name: _rewritten(schema, rewrite) for name, schema in value.items()}
        elif key == "discriminator" and isinstance(value, dict):
            rewritten[key] = _with_mapping(value, rewrite)
        else:
            rewritten[key] = _rewritten(value, rewrite)
    if rewritten.get("type") == "object":
        # Generators make a class of an object inside of another one, and name it by its member if it has no title.
        rewritten.pop("title", None)
    return _with_counted_items(rewritten)


def _with_counted_items(schema: Json) -> Json:
    """Say with `maxItems` instead of `items: false` that a tuple has no more items.

    Both mean the same, but there are code generators that refuse a whole document with a schema that is a boolean.
    """
    if "prefixItems" not in schema or schema.get("items") is not False:
        return schema
    most = min(len(schema["prefixItems"]), schema.get("maxItems", len(schema["prefixItems"])))
    return {**{key: value for key, value in schema.items() if key != "items"}, "maxItems": most}


def _with_mapping(discriminator: Json, rewrite: Rewriter) -> Json:
    mapping = discriminator.get("mapping")
    if not isinstance(mapping, dict):
        return discriminator
    targets = {tag: rewrite(target) if isinstance(target, str) else target for tag, target in mapping.items()}
    return {**discriminator, "mapping": targets}


def _title(schema: Any) -> str:  # noqa: ANN401 - JSON
    title = schema.get("title") if isinstance(schema, dict) else None
    return title if isinstance(title, str) else ""
