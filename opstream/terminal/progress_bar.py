"""How far long work over many things is: a bar on a terminal, otherwise a line every few seconds. Everything on stderr.

Callers: `rebuilding`, `verifying`, `progress`.
"""

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
"""Seconds between two looks of the bar."""
_LINE_INTERVAL: Final = 5.0
"""Seconds between two lines where there is no terminal."""


class ProgressBar:
    """The progress of one piece of work after the other.

    Args:
        stream: where to.
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
        """So many `what` are to be gone through now."""
        self._unit, self._total, self._done = what, total, 0
        self._began = self._clock()
        self._shown = self._began

    def show(self, done: int) -> None:
        """So many of them are done."""
        self._done = done
        now = self._clock()
        if now - self._shown >= (_REDRAW_INTERVAL if self._is_bar else _LINE_INTERVAL):
            self._shown = now
            self._draw()

    def end(self) -> None:
        """All of them are."""
        self.clear()

    def clear(self) -> None:
        """Make room for a line that stays; the bar comes back by itself."""
        if self._is_bar:
            self._write(_CLEAR)

    def print_line(self, text: str) -> None:
        """A line that stays."""
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
    """Shows it. As a context manager: while it lasts.

    Args:
        what: is read.
        is_shown: whether; what is told is always.
        is_plain: whether there are lines where there can be no bar.
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
        """The sequence that was read last, of those from `first` to `last`, which stay the same."""
        if self._bar is None:
            return
        done, total = max(0, sequence - first + 1), max(0, last - first + 1)
        if not self._is_started:
            self._is_started = True
            self._bar.begin(self._what, total)
        self._bar.show(min(done, total))

    def clear(self) -> None:
        """Make room for a line on stdout, which may be the same terminal."""
        if self._bar is not None:
            self._bar.clear()

    def print_line(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        click.echo(f"opstream: {text}", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
