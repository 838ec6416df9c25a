"""Progress of long work: a changing line on a terminal, otherwise one line for each tenth."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Final

_CLEAR: Final = "\r\x1b[K"
_TENTHS: Final = 10


class Progress:
    """Shows the progress of one task after another.

    Args:
        say: prints a permanent line.
        stream: gets the changing line, if it is a terminal.
        clock: monotonic seconds.
    """

    def __init__(self, say: Callable[[str], None], stream: IO[str], clock: Callable[[], float]) -> None:
        self.say = say
        self._stream = stream
        self._clock = clock
        self._is_live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._what = ""
        self._total = 0
        self._began = 0.0
        self._shown_tenths = 0

    def begin(self, what: str, total: int) -> None:
        """Begin a task of `total` operations."""
        self._what, self._total, self._began, self._shown_tenths = what, total, self._clock(), 0
        self.show(0)

    def show(self, done: int) -> None:
        """Show that `done` operations are done."""
        if self._is_live:
            self._write(f"{_CLEAR}{self._line(done)}")
            return
        tenths = done * _TENTHS // self._total
        if self._shown_tenths < tenths < _TENTHS:  # `end` shows the last one
            self._shown_tenths = tenths
            self.say(self._line(done))

    def end(self) -> None:
        """Show that all operations are done."""
        if self._is_live:
            self._write(_CLEAR)
        self.say(self._line(self._total))

    def _line(self, done: int) -> str:
        seconds = self._clock() - self._began
        rate = f" ({done / seconds:,.0f}/s)" if done and seconds > 0 else ""
        return f"{self._what}: {done:,} of {self._total:,} operations{rate}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
