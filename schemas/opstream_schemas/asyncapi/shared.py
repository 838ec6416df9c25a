"""How parts of the AsyncAPI document refer to each other. Used by the other modules of this package."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_schemas.names import Kind

Json = dict[str, Any]

SCHEMAS_PREFIX: Final = "#/components/schemas/"


def reference(*steps: str) -> Json:
    """A reference to a part of the document, by its steps from the root; none of ours needs escaping."""
    return {"$ref": "#/" + "/".join(steps)}


def component_reference(kind: str, name: str) -> Json:
    """A reference to a component of a kind (`messages`, `schemas`, …)."""
    return reference("components", kind, name)


def first_line(docstring: str | None) -> str:
    """The first line of a docstring."""
    return (docstring or "").partition("\n")[0]


class TypedAction(msgspec.Struct, frozen=True, kw_only=True):
    """An action whose requests and results have schemas of their own."""

    kind: Kind
    version: int
    """Of the action. The journal also holds events of earlier ones, whose types may have been others."""
    summary: str = ""
    components: Json
    """The schemas named `action_name(kind, "input")` and `action_name(kind, "result")`, and those that they refer to,
    which have names that no other action has. JSON Schema draft-07; references start at the document's root."""
    input: object = msgspec.UNSET
    """An example, JSON; `UNSET` for none."""
    result: object = msgspec.UNSET
    """The same."""


def action_object_name(kind: Kind, role: str) -> str:
    """Of a component, message or channel of one action; a `.` is in no resource or action, so names can't collide."""
    return f"{kind.resource}.{kind.action}.{role}"
