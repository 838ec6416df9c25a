"""Limits of the texts and the JSON that the journal records, and texts for people.

Why nesting is limited: a decoder recurses, so a document that its writer could just decode may be too deep for a reader
with less stack left. The journal deletes nothing, so the operation of such a document would be stuck for ever.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Final

TEXT_LIMIT: Final = 4096
"""Bytes of UTF-8 that an error message or a progress text may have; longer ones are cut."""
SEALED_PREFIX: Final = "sealed:1:"
"""Of each text that the key of an operation has sealed (`seals/operation_key.py`). The number is that of the form."""
MAX_NESTING: Final = 100
"""Levels of arrays and objects that an action's input or result may have."""
MAX_EXTREME_NUMBERS: Final = 300
"""Numbers near the ends of a double's range that an action's input may have. msgspec takes 10 µs for each, not 0.03."""

# Possessive quantifiers: a body full of escapes costs neither backtracking nor memory.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_PLAIN: Final = bytes(set(range(256)) - set(b'[]{}"\\'))
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_ZEROS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_EXTREME: Final = re.compile(
    rb"""[0-9][eE](?:
        [+-]?0*+(?:2[89][0-9]|[3-9][0-9]{2}|[1-9][0-9]{3})  # from 280: the digits of a double shift it by up to 17
        |(?<=[0-9.]{28}[eE])[+-]?0*+[1-9][0-9]{2}  # more digits shift it further
    )""",
    re.VERBOSE,
)


class TooDeep(ValueError):
    """A JSON document has more levels than a reader with little stack can read."""


def one_line(text: str) -> str:
    """Return a foreign text as one line: a space replaces every character that starts a line or moves the cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def escape_json(document: str) -> str:
    """Return JSON with an escape for every character that is shown as something else, or not at all.

    Such characters are those that move the cursor, end a line for some programs, or turn the direction of the text
    (U+202E). The JSON means the same. Its own line breaks and spaces stay.
    """
    return "".join(char if char in "\n " or char.isprintable() else _json_escape(char) for char in document)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def format_count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 event`, `1,200 events`, or with `many` given `2 entries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def truncate_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return the text cut to `limit` bytes of UTF-8, at a character boundary. Lone surrogates are replaced."""
    # A character has at least one byte, so what follows is cut in any case: a huge text costs no more than a long one.
    encoded = text[: limit + 1].encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    ellipsis = "…".encode() if limit >= 3 else b""
    return (encoded[: limit - len(ellipsis)] + ellipsis).decode("utf-8", "ignore")


def check_json(document: bytes, limit: int = MAX_NESTING) -> None:
    """Check the encoding and the nesting of a JSON document, without recursion.

    msgspec checks neither inside a `Raw`.

    Raises:
        UnicodeDecodeError: the document is not UTF-8.
        TooDeep: it has more than `limit` levels.
    """
    str(document, "utf-8")
    shape = document.translate(None, _PLAIN)
    if shape.count(b"[") + shape.count(b"{") <= limit:
        return
    # `shape` holds only brackets, quotes and backslashes. With an escape in it, only the whole document shows where the
    # strings are. Without one, a bracket is in a string exactly if the number of quotes before it is odd, so adjacent
    # quotes can be dropped in pairs.
    is_escaped = b"\\" in shape or shape.count(b'"') % 2
    shape = document if is_escaped else shape.replace(b'""', b"")
    steps = array("b", _STRING.sub(b"", shape).translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > limit:
        raise TooDeep(f"it nests deeper than {limit} levels")


def check_numbers(document: bytes, limit: int = MAX_EXTREME_NUMBERS) -> None:
    """Check that a decoder needs little time for the numbers of a JSON document. Numbers in texts do not count.

    msgspec multiplies out, digit by digit, a number whose power of ten is beyond about 289 or -308: 258 KB of `1e308`
    took 0.4 s.

    Raises:
        ValueError: the document has more than `limit` such numbers.
    """
    if document.count(b"e") + document.count(b"E") <= limit or _count_exponents(document) <= limit:
        return
    outside = _STRING.sub(b'""', document)
    if _count_exponents(outside) > limit and sum(1 for _ in _EXTREME.finditer(outside)) > limit:
        raise ValueError(f"it has more than {limit} numbers that are larger than 1e280 or smaller than 1e-280")


def _count_exponents(document: bytes) -> int:
    """Return how often a document has what looks like an exponent of three digits or more."""
    return document.translate(_ZEROS, b"+-").count(b"0e000")


def is_sealed_text(text: str) -> bool:
    """Return True if a text looks like one that the key of an operation has sealed. Only the key can tell."""
    return text.startswith(SEALED_PREFIX)
