"""What JSON the journal takes: UTF-8, and not nested too deeply.

Decoders recurse, so without a limit a document that its writer could just decode is undecodable for a reader whose
stack is a little fuller. In a journal that deletes nothing, its operation would be stuck for ever.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Final

MAX_NESTING: Final = 100
"""Arrays and objects inside each other in an action's input or result."""

# Possessive, so that a body made of escapes needs neither backtracking nor memory.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def check_json(document: bytes, limit: int = MAX_NESTING) -> None:
    """Check what a decoder of raw JSON does not: the text's encoding, and the nesting, without recursion.

    Raises:
        ValueError: the document is not UTF-8 (msgspec does not look inside of a `Raw`), or nests deeper than `limit`.
    """
    str(document, "utf-8")
    if document.count(b"[") + document.count(b"{") <= limit:
        return
    steps = array("b", _STRING.sub(b"", document).translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > limit:
        raise ValueError(f"it nests deeper than {limit} levels")
