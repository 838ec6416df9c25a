"""How far long work over many things is: a bar on a terminal, otherwise a line every few seconds. Everything on stderr.

Callers: `rebuilding`, `verifying`, `progress`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Final

import click

from .console import width

_CELLS: Final = 24
_CLEAR: Final = "\r\x1b[K"
_REDRAW: Final = 0.2
"""Seconds between two looks of the bar."""
_LINE: Final = 5.0
"""Seconds between two lines where there is no terminal."""


class Tally:
    """The progress of one piece of work after the other.

    Args:
        stream: where to.
        clock: monotonic seconds.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._is_bar = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._what = ""
        self._total = 0
        self._began = 0.0
        self._shown = 0.0
        self._done = 0

    def begin(self, what: str, total: int) -> None:
        """So many `what` are to be gone through now."""
        self._what, self._total, self._done = what, total, 0
        self._began = self._clock()
        self._shown = self._began

    def show(self, done: int) -> None:
        """So many of them are done."""
        self._done = done
        now = self._clock()
        if now - self._shown >= (_REDRAW if self._is_bar else _LINE):
            self._shown = now
            self._draw()

    def end(self) -> None:
        """All of them are."""
        self.clear()

    def clear(self) -> None:
        """Make room for a line that stays; the bar comes back by itself."""
        if self._is_bar:
            self._write(_CLEAR)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._write(f"{text}\n")

    def _draw(self) -> None:
        seconds = self._clock() - self._began
        rate = self._done / seconds if seconds > 0 else 0.0
        left = f", {_span((self._total - self._done) / rate)} left" if rate else ""
        text = f"{self._done:,} of {self._total:,} {self._what}, {rate:,.0f}/s{left}"
        if not self._is_bar:
            self._write(f"{text}\n")
            return
        share = self._done / self._total if self._total else 1.0
        cells = round(share * _CELLS)
        bar = f"[{'#' * cells}{'-' * (_CELLS - cells)}] {share * 100:3.0f} %  {text}"
        self._write(f"{_CLEAR}{bar[: width(self._stream) - 1]}")

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False, color=self._is_bar or None)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
