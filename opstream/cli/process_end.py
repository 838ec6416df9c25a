"""The end of a command whose process has imported an author's module: it does not wait for what the module has started.

Python waits at its end for every thread that is not a daemon. One that a module starts at its import would keep the
command for ever, also when it has long said what is wrong.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

_WAIT: Final = 1.0
"""Seconds that the threads and processes of a module have to end by themselves."""


@contextmanager
def end_with_command() -> Iterator[None]:
    """End the process with the body of this context, if threads or processes of an author's code keep it otherwise."""
    known = threading.enumerate()
    try:
        yield
    except BaseException as error:
        if left := _left_behind(known):
            _end_now(left, error)
        raise
    if left := _left_behind(known):
        _end_now(left, None)


def _left_behind(known: list[threading.Thread]) -> list[str]:
    if "opstream_runner" not in sys.modules:
        return []  # this command imports no actions
    from opstream_runner.containment.left_behind import wait_for_left_behind

    return wait_for_left_behind(_WAIT, known=known)


def _end_now(left: list[str], error: BaseException | None) -> None:
    status = 0
    with suppress(Exception):  # a module may have put anything in the place of the streams
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            status = 1
            sys.excepthook(type(error), error, error.__traceback__)
        click.echo(f"opstream: ending although these do not end: {', '.join(left)}", err=True)
    with suppress(Exception):
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)
