"""Threads and processes of an author's code for which Python would wait at the end of the process, perhaps for ever."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any


def wait_for_left_behind(seconds: float, *, known: Collection[threading.Thread] = ()) -> list[str]:
    """Wait for the threads that are not daemons, and for the processes of `multiprocessing` that are not.

    Args:
        seconds: the most that this takes in all.
        known: threads that do not count.

    Returns:
        The names of those that still run: only `os._exit` ends the process without waiting for them.
    """
    until = time.monotonic() + seconds
    left = _threads(known) + _processes()
    for one in left:
        with suppress(Exception):  # an author's class may override anything
            one.join(max(0.0, until - time.monotonic()))
    return sorted(_name(one) for one in left if _is_alive(one))


def _threads(known: Collection[threading.Thread]) -> list[Any]:
    current = threading.current_thread()
    return [one for one in threading.enumerate() if one is not current and not one.daemon and one not in known]


def _processes() -> list[Any]:
    module = sys.modules.get("multiprocessing.process")
    with suppress(Exception):
        return [one for one in module.active_children() if not one.daemon] if module is not None else []
    return []


def _is_alive(one: Any) -> bool:  # noqa: ANN401 - a thread or a process
    with suppress(Exception):
        return bool(one.is_alive())
    return True


def _name(one: Any) -> str:  # noqa: ANN401 - as above
    with suppress(Exception):
        return str(one.name)
    return "one without a name"
