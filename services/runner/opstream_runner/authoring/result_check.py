"""Checks that the JSON of a result is what its action announces: the type, no unknown member, nothing twice.

Most results are exactly what their type would write. Then one decode and one encode prove all of it (docs/adr/0030).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import inspect as types

from opstream_schemas.action_types.repeated_members import find_repeated_name
from opstream_schemas.action_types.schema_nodes import Schema, schema_nodes
from opstream_schemas.action_types.text_rules import find_text_rules
from opstream_schemas.action_types.type_decoder import Decode, schema_decoder


class ResultCheck:
    """Checks the results of one action.

    Args:
        model: the type of a result.
        schema: the announced one.
    """

    def __init__(self, model: Any, schema: Schema) -> None:  # noqa: ANN401 - any type that msgspec knows
        self._model = model
        self._schema = schema
        self._decode: Decode = msgspec.json.Decoder(model).decode
        self._needs: _Needs | None = None

    def check(self, encoded: bytes) -> None:
        """Check a result, as a client will read it.

        Args:
            encoded: JSON.

        Raises:
            msgspec.ValidationError: it is not what the action announces; the message says where.
            msgspec.DecodeError: it is no JSON.
            Exception: what the result type's own code raises.
        """
        if self._needs is None:
            self._needs = _Needs(self._model, self._schema)
        rules = self._needs.rules
        if rules is not None and rules.has_patterns:
            rules.check_document(encoded)  # first, because the type's decoder runs patterns without a bound
        decoded = self._decode(encoded)
        # What the type writes has no unknown member, and none twice: they would be lost on the way.
        is_written = not self._needs.keeps_raw and _write(decoded) == encoded
        if is_written and not self._needs.has_sets:
            return
        closed = self._needs.decode_closed(encoded)
        plain = msgspec.json.decode(encoded)
        name = None if is_written else find_repeated_name(encoded, plain)
        if name is not None:
            raise msgspec.ValidationError(
                f"an object has the member {json.dumps(name, ensure_ascii=False)} twice: two of its keys are the same "
                "in JSON"
            )
        if rules is not None and not is_written:
            rules.check(plain)
        if self._needs.has_sets and _write(closed).count(b",") < _write(plain).count(b","):
            raise msgspec.ValidationError("an item comes twice where a set is declared: return a set")


class _Needs:
    """What the announced schema asks for beyond the type."""

    def __init__(self, model: Any, schema: Schema) -> None:  # noqa: ANN401
        nodes = list(schema_nodes(schema))
        self.keeps_raw = _holds_raw(types.type_info(model), set())
        """True if a part of a result is not decoded."""
        self.has_sets = any(node.get("uniqueItems") is True for node in nodes)
        """True if the type alone takes what the schema refuses: what is unequal only in JSON."""
        self.rules = find_text_rules(schema, with_uuids=True)
        self.decode_closed: Decode = schema_decoder(schema) or msgspec.json.Decoder(model).decode


def _write(value: Any) -> bytes:  # noqa: ANN401
    try:
        return msgspec.json.encode(value)
    except Exception:  # noqa: BLE001 - a type may be decoded and not encoded
        return b""


def _holds_raw(part: Any, seen: set[Any]) -> bool:  # noqa: ANN401
    if isinstance(part, types.RawType):
        return True
    if isinstance(part, tuple):
        return any(_holds_raw(one, seen) for one in part)
    if not isinstance(part, types.Type | types.Field):
        return False
    cls = getattr(part, "cls", None)
    if cls is not None and cls in seen:
        return False
    seen.add(cls)
    return any(_holds_raw(getattr(part, name), seen) for name in part.__struct_fields__)
