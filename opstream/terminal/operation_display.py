"""Shows an operation while it is followed: a progress bar on a terminal, otherwise one line for each change.

It is meant for stderr: stdout is for results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Final, Protocol, Self

import click

from opstream_schemas.operation.state import TERMINAL_STATUSES
from opstream_schemas.status_monitor import AwaitedSignal, StatusMonitor, WaitingReason

from .console import coloured, printable, supports_colour, terminal_width

STATUS_COLOURS: Final = {"Succeeded": "green", "Failed": "red", "Canceled": "yellow"}

_BAR_WIDTH: Final = 24
_CLEAR: Final = "\r\x1b[K"
_REPEAT_INTERVAL: Final = 30.0
"""Seconds for which the same problem is not printed again."""
_WAITS: Final[Mapping[str, str]] = {
    WaitingReason.RESOURCE: "another operation has its resource",
    WaitingReason.RETRY: "the last attempt failed, and the next one has not begun",
    WaitingReason.SLEEP: "its action waits for a time",
    WaitingReason.CHILD: "it waits for its children",
    WaitingReason.RUNNER: "no runner takes operations of this action now",
    WaitingReason.FREE_RUNNER: "all runners of this action are busy",
    WaitingReason.CONCURRENCY: "this action runs as many times at once as it may",
    WaitingReason.RATE: "this action starts no more often than its rate allows",
    WaitingReason.START_TIME: "its start time has not come",
    WaitingReason.VERSION: "no runner has the version of this action that it was requested for",
    WaitingReason.SIGNAL: "it waits for a signal",
    WaitingReason.PAUSED: "an operator has paused this action",
}


class OperationDisplay(Protocol):
    """Shows one operation. A context manager: for as long as the operation is followed."""

    def show(self, monitor: StatusMonitor) -> None:
        """Show the state of the operation. Called when it has changed."""

    def show_retry(self, problem: str, delay: float) -> None:
        """Show that a request failed, and is sent again after `delay` seconds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def make_operation_display(
    stream: IO[str], clock: Callable[[], float], now: Callable[[], datetime]
) -> OperationDisplay:
    """A bar if the stream is a terminal that can redraw a line, otherwise lines.

    Args:
        stream: to print to.
        clock: monotonic seconds.
        now: the current time, for lines.
    """
    can_redraw = stream.isatty() and os.environ.get("TERM") != "dumb"
    return BarDisplay(stream, clock) if can_redraw else LineDisplay(stream, clock, now)


class LineDisplay:
    """One line for each change, with the time in UTC."""

    def __init__(self, stream: IO[str], clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._stream = stream
        self._now = now
        self._problems = _RepeatFilter(clock)

    def show(self, monitor: StatusMonitor) -> None:
        """See `OperationDisplay.show`."""
        if monitor.status in TERMINAL_STATUSES:
            self._line(monitor.status)
            return
        percent = "" if monitor.percent_complete is None else f"{monitor.percent_complete:.0f} %"
        self._line(f"{monitor.status:<10}  {percent:>5}  {_detail(monitor)}")

    def show_retry(self, problem: str, delay: float) -> None:
        """See `OperationDisplay.show_retry`."""
        if self._problems.is_new(problem):
            self._line(_retry_text(problem, delay))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _line(self, text: str) -> None:
        click.echo(f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}  {text.rstrip()}", file=self._stream)


class BarDisplay:
    """One line that is redrawn, also while nothing changes, so that the elapsed time is up to date.

    Args:
        stream: to print to.
        clock: monotonic seconds.
        tick: seconds between two drawings.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float], *, tick: float = 1.0) -> None:
        self._stream = stream
        self._clock = clock
        self._tick_seconds = tick
        self._begin = clock()
        self._problems = _RepeatFilter(clock)
        self._has_colour = supports_colour(stream)
        self._monitor: StatusMonitor | None = None
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress bar", daemon=True)

    def show(self, monitor: StatusMonitor) -> None:
        """See `OperationDisplay.show`."""
        with self._lock:
            self._monitor = monitor
            if monitor.status not in TERMINAL_STATUSES:  # `__exit__` prints the end
                self._draw()

    def show_retry(self, problem: str, delay: float) -> None:
        """See `OperationDisplay.show_retry`."""
        if self._problems.is_new(problem):
            with self._lock:
                self._write(f"{_CLEAR}{_retry_text(problem, delay)}\n")
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
            status = self._coloured(monitor.status)
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
        width = terminal_width(self._stream) - 1 - len(status)  # some terminals break the line in the last column
        self._write(f"{_CLEAR}{self._coloured(status)}{rest[: max(0, width)]}")

    def _coloured(self, status: str) -> str:
        return coloured(status, STATUS_COLOURS.get(status), has_colour=self._has_colour, is_bold=True)

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False, color=self._has_colour or None)


class _RepeatFilter:
    """Filters problems that were printed less than `_REPEAT_INTERVAL` ago, so that an outage is not one line a try."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_shown: dict[str, float] = {}

    def is_new(self, problem: str) -> bool:
        now = self._clock()
        if now - self._last_shown.get(problem, -_REPEAT_INTERVAL) < _REPEAT_INTERVAL:
            return False
        self._last_shown[problem] = now
        return True


def _detail(monitor: StatusMonitor) -> str:
    if monitor.cancel_requested:
        return "canceled by a client, and has not stopped yet"
    if monitor.retry_at is not None:
        return f"attempt {monitor.attempt} failed, the next one starts at {monitor.retry_at.astimezone(UTC):%H:%M:%SZ}"
    blocked_by = monitor.blocked_by
    if monitor.queue_position:
        owner = blocked_by.operation_id if blocked_by is not None else ""
        owner = f", which operation {printable(owner)} has" if owner else ""
        return f"number {monitor.queue_position} in the queue for its resource{owner}"
    if monitor.waiting_for == WaitingReason.START_TIME and monitor.start_at is not None:
        return f"it does not start before {monitor.start_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if blocked_by is not None and blocked_by.reason == WaitingReason.RATE and blocked_by.until is not None:
        return f"{_WAITS[WaitingReason.RATE]}: it may start at {blocked_by.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if blocked_by is not None and blocked_by.reason == WaitingReason.PAUSED and blocked_by.message:
        return f"{_WAITS[WaitingReason.PAUSED]}: {printable(blocked_by.message)}"
    if blocked_by is not None and blocked_by.signal is not None:
        return _signal_text(blocked_by.signal)
    if monitor.waiting_for:
        return _WAITS.get(monitor.waiting_for, f"it waits for: {printable(monitor.waiting_for)}")
    return printable(monitor.message)


def _signal_text(signal: AwaitedSignal) -> str:
    count = f", {signal.approvals} of {signal.approvers} have sent it" if signal.approvers > 1 else ""
    return f"it waits for the signal {printable(signal.name)}{count}"


def _retry_text(problem: str, delay: float) -> str:
    return f"{printable(problem)}; trying again in {delay:.1f} s"


def _cells(percent: float) -> str:
    done = round(min(max(percent, 0.0), 100.0) / 100 * _BAR_WIDTH)
    return "#" * done + "-" * (_BAR_WIDTH - done)


def _format_elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
