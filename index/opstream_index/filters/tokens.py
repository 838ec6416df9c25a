"""Tokens of a filter: names, texts in quotes, numbers, times, parentheses, commas."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from .errors import FilterRefused, shown

MAX_FILTER_LENGTH: Final = 2048
"""Characters of a filter."""
MAX_TEXT_LENGTH: Final = 512
"""Characters of a text in quotes."""


class TokenType(Enum):
    """What a token is."""

    NAME = "a name"
    TEXT = "a text in quotes"
    NUMBER = "a number"
    TIME = "a time"
    OPEN = "'('"
    CLOSE = "')'"
    COMMA = "','"
    END = "the end"


class Token(NamedTuple):
    """One token."""

    type: TokenType
    value: str
    """A text without its quotes, everything else as it is written."""
    position: int
    """Of its first character, from 1."""


_SPACES: Final = re.compile(r"[ \t]*")
_TOKEN: Final = re.compile(
    r"""(?P<NAME>[A-Za-z_][A-Za-z0-9_./-]*)
    |'(?P<TEXT>(?:[^']|'')*)'
    |(?P<TIME>[0-9]{4}-[0-9]{2}-[0-9]{2}[0-9A-Za-z:.+-]*)
    |(?P<NUMBER>-?[0-9]+)(?![0-9A-Za-z_.])
    |(?P<OPEN>\()|(?P<CLOSE>\))|(?P<COMMA>,)""",
    re.VERBOSE,
)


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a filter, the end among them.

    Raises:
        FilterRefused: the text is too long, or has a character that begins no token.
    """
    if len(text) > MAX_FILTER_LENGTH:
        raise FilterRefused(f"it has {len(text)} characters, {MAX_FILTER_LENGTH} are allowed")
    found, at = [], 0
    while True:
        at = _SPACES.match(text, at).end()  # type: ignore[union-attr]  # it always matches
        if at == len(text):
            found.append(Token(TokenType.END, "", at + 1))
            return found
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _unreadable(text, at)
        found.append(_token(match, at + 1))
        at = match.end()


def _token(match: re.Match[str], position: int) -> Token:
    kind = TokenType[match.lastgroup or ""]
    value = match[kind.name]
    if kind is TokenType.TEXT:
        value = value.replace("''", "'")
        if len(value) > MAX_TEXT_LENGTH:
            raise FilterRefused(f"a text has {len(value)} characters, {MAX_TEXT_LENGTH} are allowed", position)
        if not value.isprintable():
            raise FilterRefused("a text may only have characters that can be printed", position)
    return Token(kind, value, position)


def _unreadable(text: str, at: int) -> FilterRefused:
    if text[at] == "'":
        return FilterRefused(
            "the text that begins here has no end: close it with ', and write '' for a ' in it", at + 1
        )
    if text[at] == '"':
        return FilterRefused("a text stands in single quotes: 'Failed'", at + 1)
    return FilterRefused(f"{shown(text[at : at + 10])} is neither a name, a value nor a parenthesis", at + 1)
