"""Counts of operations as rows of a table: one for each value of a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from opstream.terminal.console import coloured, printable
from opstream.terminal.table import text_beside

from .spans import shown_span

_COLUMNS: Final = "{:>9}  {}  {:>8}  {:>7}  {:>7}  {:>7}  {:>7}"
HEADING: Final = _COLUMNS.format("count", " failed", "canceled", "open", "median", "95 %", "longest")

_ENDED: Final = ("Succeeded", "Failed", "Canceled")


class Took(NamedTuple):
    """How long operations took, in seconds."""

    median: float
    p95: float
    longest: float


def count_row(
    key: str | None,
    number: int,
    statuses: Mapping[str, int],
    took: Took | None,
    *,
    has_colour: bool,
    width: int | None = None,
) -> str:
    """One value of a field as a row under `HEADING`.

    Args:
        key: the value; None for the operations without one.
        number: how many operations have it.
        statuses: the number by status.
        took: how long they took; None if none of them has begun and ended.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    failed = statuses.get("Failed", 0)
    left = number - sum(statuses.get(status, 0) for status in _ENDED)
    shown = ("-",) * 3 if took is None else tuple(map(shown_span, took))
    red = coloured(f"{failed:>7}", "red" if failed else None, has_colour=has_colour)
    head = _COLUMNS.format(number, red, statuses.get("Canceled", 0), left, *shown)
    return text_beside(head, "(none)" if key is None else printable(key), width)
