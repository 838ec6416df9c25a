"""How an operation looks while it is followed: a progress bar on a terminal, otherwise one line for each change.

Called by `following`. Everything here goes to stderr: stdout is for results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Final, Protocol, Self

import click

from opstream_schemas.operation.state import TERMINAL_STATUSES
from opstream_schemas.status_monitor import StatusMonitor

from .console import coloured, printable, supports_colour, terminal_width

STATUS_COLOURS: Final = {"Succeeded": "green", "Failed": "red", "Canceled": "yellow"}

_BAR_WIDTH: Final = 24
_CLEAR: Final = "\r\x1b[K"
_REPEAT_INTERVAL: Final = 30.0
"""Seconds for which the same trouble is not told again."""


class OperationDisplay(Protocol):
    """Shows one operation. As a context manager: while it is followed."""

    def show(self, monitor: StatusMonitor) -> None:
        """The operation's state, whenever it has changed."""

    def show_retry(self, what: str, pause: float) -> None:
        """The service gave no answer, and is asked again after `pause` seconds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def make_operation_display(
    stream: IO[str], clock: Callable[[], float], now: Callable[[], datetime]
) -> OperationDisplay:
    """The display that fits a stream.

    Args:
        stream: where to.
        clock: monotonic seconds.
        now: the time, for lines.
    """
    is_capable = stream.isatty() and os.environ.get("TERM") != "dumb"
    return BarDisplay(stream, clock) if is_capable else LineDisplay(stream, clock, now)


class LineDisplay:
    """One line for each change, with the time in UTC."""

    def __init__(self, stream: IO[str], clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._stream = stream
        self._now = now
        self._troubles = _RepeatFilter(clock)

    def show(self, monitor: StatusMonitor) -> None:
        """`OperationDisplay.show`."""
        if monitor.status in TERMINAL_STATUSES:
            self._line(monitor.status)  # how far it was tells nothing any more
            return
        percent = "" if monitor.percent_complete is None else f"{monitor.percent_complete:.0f} %"
        self._line(f"{monitor.status:<10}  {percent:>5}  {_detail(monitor)}")

    def show_retry(self, what: str, pause: float) -> None:
        """`OperationDisplay.trouble`."""
        if self._troubles.is_new(what):
            self._line(_retry_text(what, pause))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _line(self, text: str) -> None:
        click.echo(f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}  {text.rstrip()}", file=self._stream)


class BarDisplay:
    """One line that is drawn over and over, also while nothing changes, so that the time is seen to pass.

    Args:
        stream: where to.
        clock: monotonic seconds.
        tick: seconds after which it is drawn again.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float], *, tick: float = 1.0) -> None:
        self._stream = stream
        self._clock = clock
        self._tick_seconds = tick
        self._begin = clock()
        self._troubles = _RepeatFilter(clock)
        self._is_coloured = supports_colour(stream)
        self._monitor: StatusMonitor | None = None
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress bar", daemon=True)

    def show(self, monitor: StatusMonitor) -> None:
        """`OperationDisplay.show`."""
        with self._lock:
            self._monitor = monitor
            if monitor.status not in TERMINAL_STATUSES:  # the end is told by what stays
                self._draw()

    def show_retry(self, what: str, pause: float) -> None:
        """`OperationDisplay.trouble`."""
        if self._troubles.is_new(what):
            with self._lock:
                self._write(f"{_CLEAR}{_retry_text(what, pause)}\n")
                self._draw()

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._ticker.join()
        monitor = self._monitor
        text = ""
        if monitor is not None and monitor.status in TERMINAL_STATUSES:
            status = coloured(monitor.status, STATUS_COLOURS.get(monitor.status), is_on=self._is_coloured, is_bold=True)
            text = f"{status} after {_format_elapsed(self._clock() - self._begin)}\n"
        self._write(f"{_CLEAR}{text}")

    def _tick(self) -> None:
        while not self._is_over.wait(self._tick_seconds):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        monitor = self._monitor
        if monitor is None:
            return
        status: str = monitor.status
        percent = monitor.percent_complete
        bar = "" if percent is None else f"[{_cells(percent)}] {percent:3.0f} %  "
        rest = f"  {bar}{_format_elapsed(self._clock() - self._begin)}  {_detail(monitor)}".rstrip()
        room = terminal_width(self._stream) - 1 - len(status)  # in the last column some terminals break the line
        shown = coloured(status, STATUS_COLOURS.get(status), is_on=self._is_coloured, is_bold=True)
        self._write(f"{_CLEAR}{shown}{rest[: max(0, room)]}")

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False, color=self._is_coloured or None)


class _RepeatFilter:
    """Keeps an outage from being told with every try."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_shown: dict[str, float] = {}

    def is_new(self, what: str) -> bool:
        now = self._clock()
        if now - self._last_shown.get(what, -_REPEAT_INTERVAL) < _REPEAT_INTERVAL:
            return False
        self._last_shown[what] = now
        return True


def _detail(monitor: StatusMonitor) -> str:
    if monitor.retry_at is not None:
        return f"attempt {monitor.attempt} failed, the next one starts at {monitor.retry_at.astimezone(UTC):%H:%M:%SZ}"
    if monitor.queue_position:
        return f"number {monitor.queue_position} in the queue for its resource"
    return printable(monitor.message)


def _retry_text(what: str, pause: float) -> str:
    return f"{printable(what)}; trying again in {pause:.1f} s"


def _cells(percent: float) -> str:
    done = round(min(max(percent, 0.0), 100.0) / 100 * _BAR_WIDTH)
    return "#" * done + "-" * (_BAR_WIDTH - done)


def _format_elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
