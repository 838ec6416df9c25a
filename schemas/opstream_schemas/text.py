"""Texts are cut before they are recorded. Callers: decisions, and whoever makes an error or a log line from what
others wrote. JSON is checked before the journal takes it: UTF-8, and not nested too deeply.

Decoders recurse, so without a limit a document that its writer could just decode is undecodable for a reader whose
stack is a little fuller. In a journal that deletes nothing, its operation would be stuck for ever.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Final

TEXT_LIMIT: Final = 4096
"""Bytes of UTF-8 to which error messages and progress texts are cut."""
MAX_NESTING: Final = 100
"""Arrays and objects inside each other in an action's input or result."""

# Possessive, so that a body made of escapes needs neither backtracking nor memory.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_PLAIN: Final = bytes(set(range(256)) - set(b'[]{}"\\'))
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def one_line(text: str) -> str:
    """A text of somebody else's in one line, without what would begin another one or move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def format_count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 event`, `1,200 events`, and with `many` given `2 entries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def truncate_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Cut a text to `limit` bytes of UTF-8 at a character boundary; lone surrogates are replaced."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    ellipsis = "…".encode() if limit >= 3 else b""
    return (encoded[: limit - len(ellipsis)] + ellipsis).decode("utf-8", "ignore")


def check_json(document: bytes, limit: int = MAX_NESTING) -> None:
    """Check what a decoder of raw JSON does not: the text's encoding, and the nesting, without recursion.

    Raises:
        ValueError: the document is not UTF-8 (msgspec does not look inside of a `Raw`), or nests deeper than `limit`.
    """
    str(document, "utf-8")
    shape = document.translate(None, _PLAIN)
    if shape.count(b"[") + shape.count(b"{") <= limit:
        return
    # An escape means something only beside what it escapes. Without any, a bracket is inside of a string exactly if the
    # quotes before it are odd in number, so pairs of neighbours may go.
    is_escaped = b"\\" in shape or shape.count(b'"') % 2
    shape = document if is_escaped else shape.replace(b'""', b"")
    steps = array("b", _STRING.sub(b"", shape).translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > limit:
        raise ValueError(f"it nests deeper than {limit} levels")
