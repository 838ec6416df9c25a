"""How far a walk through a stream has come: a bar on a terminal, otherwise a line now and then. All of it on stderr.

Called by `replaying`, `exporting` and `auditing`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_QUIET: Final = 10.0


class Progress:
    """Shows it. As a context manager: while it lasts.

    Args:
        what: is read, for the lines.
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
        console = Console(stderr=True)
        self._what = what
        self._bar: Bar | None = None
        self._task = None
        self._is_plain = is_shown and is_plain and not console.is_terminal
        self._clock = clock
        self._told_at = clock()
        if is_shown and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task(what, total=None)

    def advance(self, first: int, sequence: int, last: int) -> None:
        """The sequence that was read last, of those from `first` to `last`."""
        done, total = max(0, sequence - first + 1), max(0, last - first + 1)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=min(done, total), total=total)
        elif self._is_plain and self._clock() - self._told_at > _QUIET:
            self._told_at = self._clock()
            self.tell(f"{min(done, total)} of {total} {self._what}")

    def tell(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None and self._bar.live.is_started:
            self._bar.console.print(f"opstream: {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(f"opstream: {text}", file=sys.stderr)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
