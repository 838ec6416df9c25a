"""Rows of a table whose last column is a text of any length: on a terminal it is wrapped inside of its own column."""

from __future__ import annotations

import textwrap
from typing import Final

import click

INDENT: Final = 4
_MIN_TEXT_WIDTH: Final = 24
"""Columns that a text needs to stand beside the others; if there are fewer, it goes below them."""


def text_beside(head: str, text: str, width: int | None) -> str:
    """A row with the text as the last column, wrapped inside of it.

    Args:
        head: the other columns, padded to their widths; it may be coloured.
        text: without line breaks; it may be coloured.
        width: columns of the terminal; None for no limit, then the row is one line.
    """
    column = len(click.unstyle(head)) + 2
    if width is None or column + len(click.unstyle(text)) < width:
        return f"{head}  {text}".rstrip()
    if width - column <= _MIN_TEXT_WIDTH:
        return text_below(head, text, width)
    return f"{head}  {_wrap(text, width, column)}"


def text_below(head: str, text: str, width: int | None) -> str:
    """A row with the text on lines of its own below the other columns, indented. See `text_beside`."""
    if width is None:
        return text_beside(head, text, width)
    return f"{head.rstrip()}\n{' ' * INDENT}{_wrap(text, width, INDENT)}".rstrip()


def text_on_second_line(head: str, second: str, text: str, width: int | None) -> str:
    """A row of two lines: the second has a column of its own, indented, and beside it the text. See `text_beside`."""
    return f"{head.rstrip()}\n{text_beside(' ' * INDENT + second, text, width)}"


def fits_beside(heading: str, width: int | None) -> bool:
    """Return True if a text after the columns of a heading has enough columns to stand beside them."""
    return width is None or width - len(heading) > _MIN_TEXT_WIDTH


def _wrap(text: str, width: int, column: int) -> str:
    # The last column stays empty: some terminals break the line there.
    return f"\n{' ' * column}".join(
        textwrap.wrap(text, max(_MIN_TEXT_WIDTH, width - column - 1), break_on_hyphens=False)
    )
