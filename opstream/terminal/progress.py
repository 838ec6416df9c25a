"""How far a walk through a stream has come, and what is told on the way. All of it on stderr.

Called by `replaying`, `exporting`, `auditing` and `chain`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self

import click

from .progress_bar import Tally


class Progress:
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
        self._tally = Tally(sys.stderr, clock) if is_shown and (is_plain or sys.stderr.isatty()) else None
        self._has_begun = False

    def advance(self, first: int, sequence: int, last: int) -> None:
        """The sequence that was read last, of those from `first` to `last`, which stay the same."""
        if self._tally is None:
            return
        done, total = max(0, sequence - first + 1), max(0, last - first + 1)
        if not self._has_begun:
            self._has_begun = True
            self._tally.begin(self._what, total)
        self._tally.show(min(done, total))

    def clear(self) -> None:
        """Make room for a line on stdout, which may be the same terminal."""
        if self._tally is not None:
            self._tally.clear()

    def tell(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        click.echo(f"opstream: {text}", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
