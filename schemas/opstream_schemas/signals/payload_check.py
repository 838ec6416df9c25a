"""Whether a signal that came before its wait fits what the wait takes. Pure.

The door checks one that comes later (`opstream_api.inputs`), with the same decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from opstream_schemas.action_types.text_rules import find_text_rules
from opstream_schemas.action_types.type_decoder import schema_decoder
from opstream_schemas.text import truncate_text

_REASON_LIMIT: Final = 256
"""Bytes."""


def payload_check(schema: msgspec.Raw) -> Callable[[msgspec.Raw], str]:
    """Return a function that says why a payload does not fit a schema; empty if it does.

    Args:
        schema: JSON Schema of a type, as opstream announces it.
    """
    announced = msgspec.json.decode(schema)
    decode, rules = schema_decoder(announced), find_text_rules(announced)

    def problem(payload: msgspec.Raw) -> str:
        try:
            if decode is not None:
                decode(bytes(payload))
            if rules is not None:
                rules.check_document(payload)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            return truncate_text(f"it does not fit: {error}", _REASON_LIMIT)
        return ""

    return problem
