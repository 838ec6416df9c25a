"""Texts are cut before they are recorded. Callers: decisions, and whoever makes an error or a log line from what
others wrote."""

from __future__ import annotations

from typing import Final

TEXT_LIMIT: Final = 4096
"""Bytes of UTF-8 to which error messages and progress texts are cut."""


def one_line(text: str) -> str:
    """A text of somebody else's in one line, without what would begin another one or move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 event`, `1,200 events`, and with `many` given `2 entries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def cut_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Cut a text to `limit` bytes of UTF-8 at a character boundary; lone surrogates are replaced."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    ellipsis = "…".encode() if limit >= 3 else b""
    return (encoded[: limit - len(ellipsis)] + ellipsis).decode("utf-8", "ignore")
