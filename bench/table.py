"""Figures in columns. Called by both reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB


def table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Lines: the heads over their columns, the first cell of each row to the left."""
    first = max(len(row[0]) for row in rows)
    width = max(9, *map(len, heads)) + 2
    for row in (["", *heads], *rows):
        yield f"  {row[0]:<{first}}" + "".join(f"{cell:>{width}}" for cell in row[1:])
