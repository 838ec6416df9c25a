"""What all parts of the AsyncAPI document share: references between them, and the types of an action."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_schemas.names import Kind

Json = dict[str, Any]

SCHEMAS_PREFIX: Final = "#/components/schemas/"


def reference(*steps: str) -> Json:
    """Return a reference to a part of the document. The steps from its root need no escaping."""
    return {"$ref": "#/" + "/".join(steps)}


def component_reference(kind: str, name: str) -> Json:
    """Return a reference to a component of a kind (`messages`, `schemas`, …)."""
    return reference("components", kind, name)


def first_line(docstring: str | None) -> str:
    """Return the first line of a docstring."""
    return (docstring or "").partition("\n")[0]


class TypedAction(msgspec.Struct, frozen=True, kw_only=True):
    """An action whose input and result have schemas of their own in the document."""

    kind: Kind
    version: int
    """Version of the action. The journal may also hold events of earlier versions, with other schemas."""
    summary: str = ""
    input_schema: Json
    """The schema of its input, or a reference to it."""
    result_schema: Json
    """The schema of its result, likewise."""
    components: Json = {}
    """The schemas that these refer to; other actions may have the same. JSON Schema draft-07, with references from the
    root."""
    input: object = msgspec.UNSET
    """An example of the input, as JSON; `UNSET` for none."""
    result: object = msgspec.UNSET
    """An example of the result, likewise."""


def action_object_name(kind: Kind, role: str) -> str:
    """Return the name of a component, message or channel of one action. No action's name has a `.`, so none collide."""
    return f"{kind.resource}.{kind.action}.{role}"
