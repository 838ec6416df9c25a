"""Members that an object of a JSON document has twice: readers of JSON disagree which one counts."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

_ESCAPED_COLON: Final = b"\\u003"
"""How a document may write `:` otherwise than an encoder does."""


def find_repeated_name(document: bytes, value: Any) -> str | None:  # noqa: ANN401 - JSON
    """Return a name that one object of a document has twice; None if there is none.

    Args:
        document: valid JSON.
        value: the same decoded, where the last of such members is left.
    """
    if b":" not in document:
        return None
    # Each member has a colon, and those in texts are left as they are: a member that the decoder lost leaves fewer.
    is_plain = b"\\" not in document or _ESCAPED_COLON not in document
    if is_plain and document.count(b":") == msgspec.json.encode(value).count(b":"):
        return None
    repeated: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names and not repeated:
                repeated.append(name)
            names.add(name)

    json.loads(document, object_pairs_hook=note, parse_int=len, parse_float=len)
    return repeated[0] if repeated else None
