"""Progress of long work, on stderr: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import IO, Final, Self

import click

from .console import terminal_width

_BAR_WIDTH: Final = 24
_CLEAR: Final = "\r\x1b[K"
_REDRAW_INTERVAL: Final = 0.2
"""Seconds between two drawings of the bar."""
_LINE_INTERVAL: Final = 5.0
"""Seconds between two lines without a terminal."""


class ProgressBar:
    """The progress of one piece of work after another.

    Args:
        stream: to print to.
        clock: monotonic seconds.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._is_bar = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._unit = ""
        self._total = 0
        self._began = 0.0
        self._shown = 0.0
        self._done = 0

    def begin(self, what: str, total: int) -> None:
        """Begin a piece of work: `total` of `what`, e.g. 1000 messages."""
        self._unit, self._total, self._done = what, total, 0
        self._began = self._clock()
        self._shown = self._began

    def show(self, done: int) -> None:
        """Show how many are done."""
        self._done = done
        now = self._clock()
        if now - self._shown >= (_REDRAW_INTERVAL if self._is_bar else _LINE_INTERVAL):
            self._shown = now
            self._draw()

    def end(self) -> None:
        """End the piece of work, and clear the bar."""
        self.clear()

    def clear(self) -> None:
        """Clear the bar, so that a line can be printed. It is drawn again with the next progress."""
        if self._is_bar:
            self._write(_CLEAR)

    def print_line(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        self._write(f"{text}\n")

    def _draw(self) -> None:
        seconds = self._clock() - self._began
        rate = self._done / seconds if seconds > 0 else 0.0
        left = f", {_format_duration((self._total - self._done) / rate)} left" if rate else ""
        text = f"{self._done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s{left}"
        if not self._is_bar:
            self._write(f"{text}\n")
            return
        share = self._done / self._total if self._total else 1.0
        cells = round(share * _BAR_WIDTH)
        bar = f"[{'#' * cells}{'-' * (_BAR_WIDTH - cells)}] {share * 100:3.0f} %  {text}"
        self._write(f"{_CLEAR}{bar[: terminal_width(self._stream) - 1]}")

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False, color=self._is_bar or None)


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class StreamProgress:
    """The progress of reading a stream, by its sequences. A context manager: the bar is cleared at the end.

    Args:
        what: is read, e.g. messages.
        is_shown: show progress; lines of `print_line` are always printed.
        is_plain: without a terminal, print a line every few seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        what: str = "messages",
        *,
        is_shown: bool = True,
        is_plain: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._bar = ProgressBar(sys.stderr, clock) if is_shown and (is_plain or sys.stderr.isatty()) else None
        self._is_started = False

    def advance(self, first: int, sequence: int, last: int) -> None:
        """Show that the sequences from `first` to `sequence` were read, of those up to `last`."""
        if self._bar is None:
            return
        done, total = max(0, sequence - first + 1), max(0, last - first + 1)
        if not self._is_started:
            self._is_started = True
            self._bar.begin(self._what, total)
        self._bar.show(min(done, total))

    def clear(self) -> None:
        """Clear the bar before a line is printed on stdout, which may be the same terminal."""
        if self._bar is not None:
            self._bar.clear()

    def print_line(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        click.echo(f"opstream: {text}", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
