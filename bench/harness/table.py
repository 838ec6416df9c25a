"""Tables of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

KIB: Final = 1024
MIB: Final = 1024 * KIB

_Figures = TypeVar("_Figures")
Rows = Sequence[tuple[str, Callable[[_Figures], float], str]]
"""Each row of a table: its name, its figure, and the figure's format."""


def table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Lines: the heads over their columns, the first cell of each row to the left."""
    first = max(len(row[0]) for row in rows)
    width = max(9, *map(len, heads)) + 2
    for row in (["", *heads], *rows):
        yield f"  {row[0]:<{first}}" + "".join(f"{cell:>{width}}" for cell in row[1:])


def figure_table(heads: list[str], rows: Rows[_Figures], figures: Sequence[_Figures]) -> Iterator[str]:
    """Lines: a column for each measurement."""
    return table(heads, [[name, *(form.format(figure(one)) for one in figures)] for name, figure, form in rows])
