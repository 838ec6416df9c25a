"""What the document can say of one action beyond what holds for all. Made by whoever knows the catalog."""

from __future__ import annotations

import msgspec

from opstream_schemas.names import Kind

from .shared import Json


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


def action_name(kind: Kind, role: str) -> str:
    """Of a component, message or channel of one action; a `.` is in no resource or action, so names can't collide."""
    return f"{kind.resource}.{kind.action}.{role}"
