"""The load of actions as rows of a table, and a screen that shows it again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Final, NamedTuple, Self

import click

from opstream.terminal.console import coloured, printable
from opstream.terminal.table import fits_beside, text_below, text_beside

from .spans import shown_span

_COLUMNS: Final = "{:<28}  {:>9}  {}  {:>7}  {:>7}  {:>7}  {}"
HEADING: Final = _COLUMNS.format("action", "running", "waiting", "oldest", "in/min", "out/min", " failed")

_HOME: Final = "\x1b[H"
_END_OF_LINE: Final = "\x1b[K"
_END_OF_SCREEN: Final = "\x1b[J"
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


class LoadRow(NamedTuple):
    """What a row shows of an action."""

    action: str
    running: int
    slots: int
    runners: int
    waits: int
    oldest: float
    """Seconds."""
    requested: int
    ended: int
    failed: int
    what: str
    """What operations wait for, and the last failure."""


def load_row(one: LoadRow, *, has_colour: bool, width: int | None) -> str:
    """One action as a row under `HEADING`. On a narrow terminal what it waits for is on a line of its own.

    Args:
        one: what it shows.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    is_stuck = one.waits and not one.runners
    head = _COLUMNS.format(
        printable(one.action),
        f"{one.running}/{one.slots}" if one.runners else "-",
        coloured(f"{one.waits:>7}", "red" if is_stuck else None, has_colour=has_colour),
        shown_span(one.oldest) if one.waits else "-",
        one.requested,
        one.ended,
        coloured(f"{one.failed:>7}", "red" if one.failed else None, has_colour=has_colour),
    )
    place = text_beside if fits_beside(HEADING, width) else text_below
    return place(head, printable(one.what), width)


def heading(width: int | None) -> str:
    """Return the heading, with that of the last column where there is room."""
    return f"{HEADING}  what" if fits_beside(HEADING, width) else HEADING


class LiveScreen:
    """A screen that is drawn again in place. A context manager: afterwards the terminal shows what it showed before.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        self._write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(_LEAVE)

    def draw(self, lines: Sequence[str], height: int) -> None:
        """Show these lines, or as many as there is room for; the last one then says how many are left out."""
        shown = [line for text in lines for line in text.split("\n")]
        if len(shown) > height:
            shown = [*shown[: height - 1], f"… {len(shown) - height + 1} more lines: enlarge the window"]
        self._write(_HOME + "".join(f"{line}{_END_OF_LINE}\r\n" for line in shown[:-1]) + shown[-1])
        self._write(f"{_END_OF_LINE}{_END_OF_SCREEN}")

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False, color=True)
        self._stream.flush()
