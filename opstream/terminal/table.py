"""Rows of a table whose last column is a text of any length: on a terminal it goes on below itself, and not at the
left edge.

Called by `history`, `replaying`, `auditing`, `deliveries` and `unparking`.
"""

from __future__ import annotations

import textwrap
from typing import Final

import click

INDENT: Final = 4
_MIN_TEXT_WIDTH: Final = 24
"""Columns that a text needs to stand beside the others."""


def text_beside(head: str, text: str, room: int | None) -> str:
    """The text as the last column: what does not fit goes on below it, in the same column.

    Args:
        head: the other columns, all of their widths; it may be coloured.
        text: without line breaks; it may be coloured.
        room: columns of the terminal, None where there is none: then a row is one line.
    """
    column = len(click.unstyle(head)) + 2
    if room is None or column + len(click.unstyle(text)) < room:
        return f"{head}  {text}".rstrip()
    if room - column <= _MIN_TEXT_WIDTH:
        return text_below(head, text, room)
    return f"{head}  {_wrapped(text, room, column)}"


def text_below(head: str, text: str, room: int | None) -> str:
    """The text on lines of its own below the others, indented. See `beside`."""
    if room is None:
        return text_beside(head, text, room)
    return f"{head.rstrip()}\n{' ' * INDENT}{_wrapped(text, room, INDENT)}".rstrip()


def text_on_second_line(head: str, second: str, text: str, room: int | None) -> str:
    """Two lines: the second has a column of its own, indented, and the text beside it. See `beside`."""
    return f"{head.rstrip()}\n{text_beside(' ' * INDENT + second, text, room)}"


def fits_beside(heading: str, room: int | None) -> bool:
    """Whether a text behind the columns of a heading stands beside them."""
    return room is None or room - len(heading) > _MIN_TEXT_WIDTH


def _wrapped(text: str, room: int, column: int) -> str:
    # In the last column some terminals break the line.
    return f"\n{' ' * column}".join(
        textwrap.wrap(text, max(_MIN_TEXT_WIDTH, room - column - 1), break_on_hyphens=False)
    )
