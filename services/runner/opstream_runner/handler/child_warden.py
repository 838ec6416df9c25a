"""The process between the runner and the process of an isolated handler. It ends all that the handler has started.

A process group does not hold what a handler starts in a session of its own. So on Linux the warden adopts every orphan
below it (a *subreaper*), and at the end it kills its descendants until there are none: when the handler's process has
ended, when the runner closes the lifeline, and when the runner dies. It ends as the handler's process did.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_RUNNER_GONE: Final = signal.SIGHUP
"""The kernel sends it when the runner dies. The handler's session has no terminal that could."""
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_FORWARDED, _RUNNER_GONE, signal.SIGCHLD)
_POLL_MS: Final = 1_000
"""Milliseconds between two checks of the runner's process id."""
_END_TIMEOUT: Final = 4.0
"""Seconds to kill the descendants; what can't be killed is left then."""
_PAUSE: Final = 0.002


def stand_guard(channel: int, lifeline: int) -> None:
    """Fork: this returns in the process of the handler, which leads a session; the other process stays as warden.

    Args:
        channel: a descriptor that the warden does not need.
        lifeline: a pipe that the runner closes when the handler must end.
    """
    runner, warden = os.getppid(), os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    handler = os.fork()
    if handler:
        os.close(channel)
        _Warden(handler, lifeline, runner).guard()
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != warden:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Warden:
    def __init__(self, handler: int, lifeline: int, runner: int) -> None:
        self._handler = handler
        self._lifeline = lifeline
        self._runner = runner
        self._status: int | None = None
        self._is_over = False

    def guard(self) -> NoReturn:
        """Wait until the handler's process has ended or has to end, kill the rest, and end as it did."""
        woken, wake_up = os.pipe()
        for descriptor in (woken, wake_up):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        _prctl(_PR_SET_PDEATHSIG, _RUNNER_GONE)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        poll = select.poll()
        for descriptor in (self._lifeline, woken):
            poll.register(descriptor, select.POLLIN)
        while self._status is None and not self._is_over and os.getppid() == self._runner:
            for descriptor, _ in poll.poll(_POLL_MS):
                self._handle(os.read(woken, 4096) if descriptor == woken else [_RUNNER_GONE])
            self._reap()
        self._kill_descendants()
        _end_as(self._status)

    def _handle(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number == _RUNNER_GONE:
                self._is_over = True
            elif number in _FORWARDED:
                _kill(self._handler, number)

    def _kill_descendants(self) -> None:
        until = time.monotonic() + _END_TIMEOUT
        while self._reap():
            if time.monotonic() > until:
                print("opstream: what an isolated handler started can't be killed", file=sys.stderr, flush=True)
                return
            for pid in _descendants(self._handler):
                _kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE)

    def _reap(self) -> bool:
        """Wait for the children that have ended. Return False if no other is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._handler:
                self._status = status


def _descendants(handler: int) -> list[int]:
    if sys.platform != "linux":
        return [handler]
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _end_as(status: int | None) -> NoReturn:
    """End this process as another one ended."""
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
    os._exit(code if code >= 0 else 128 - code)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
