"""Says on stderr what a command waits for, once it has waited so long that a person begins to wonder."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Final

import click

from .console import printable

_FIRST_DELAY: Final = 2.0
"""Seconds of silence that a person takes for work."""
_INTERVAL: Final = 10.0
"""Seconds between two notices."""


@contextlib.contextmanager
def wait_notice(
    what: str,
    limit: float | None,
    *,
    stream: IO[str] | None = None,
    delay: float = _FIRST_DELAY,
    interval: float = _INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Print a line while the body waits: what for, how long still, and how to stop. A line, also on a terminal.

    Args:
        what: that which has not answered yet.
        limit: seconds after which the body gives up; None for never.
        stream: to print to; stderr by default.
        delay: seconds until the first line.
        interval: seconds between two lines.
        clock: monotonic seconds.
    """
    is_over = threading.Event()
    begin = clock()

    def tell() -> None:
        pause = delay
        while not is_over.wait(pause):
            pause = interval
            left = None if limit is None else limit - (clock() - begin)
            if left is not None and left < 1:
                return
            until = "without a limit" if left is None else f"for {left:.0f} s more at most"
            with contextlib.suppress(OSError, ValueError):  # a reader that is gone must not end the command
                text = f"opstream: waiting for {printable(what)}, {until}; Ctrl-C stops it"
                click.echo(text, file=sys.stderr if stream is None else stream)

    teller = threading.Thread(target=tell, name="wait notice", daemon=True)
    teller.start()
    try:
        yield
    finally:
        is_over.set()
        teller.join()
