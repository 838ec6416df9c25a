"""Starts real `opstream` processes, reads their output, and ends them.

    with Process("up", "--port", "0") as up:
        up.wait_for("opstream is ready")
        up.send(signal.SIGTERM)
        assert up.wait(10) == 0

A process that a test leaves running is killed at the end of the test, and with the test process. Tests wait for a line
of output or for the end of a process, never for a time.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from opstream.local.processes import SUPERVISOR_VARIABLE

COMMAND: Final = (sys.executable, "-P", "-m", "opstream")
OUR_VARIABLES: Final = ("OPSTREAM_", "BOOKSHELF_")
START_TIMEOUT: Final = 30.0
_READ_TIMEOUT: Final = 5.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of opstream's own, and with `extra`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)}
    return {**inherited, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Process:
    """One `opstream` command.

    Args:
        arguments: the command's name and options.
        extra: further environment variables.
        cwd: its working directory.
        command: another program than `opstream`.
    """

    def __init__(
        self,
        *arguments: str,
        extra: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.begin = time.monotonic()
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._is_over = False
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env=environment({SUPERVISOR_VARIABLE: str(os.getpid()), **(extra or {})}),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The pid of the process itself."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """All that it has printed so far, standard error included; of an ended process all that it ever printed."""
        if not self.is_running:
            self._reader.join(_READ_TIMEOUT)  # its last lines may still be in the pipe
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float = START_TIMEOUT) -> re.Match[str]:
        """Wait until a line matches, and return the match.

        Raises:
            AssertionError: the output ended, or `timeout` seconds passed; the message holds the output.
        """
        sought = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return next(filter(None, map(sought.search, self._lines)), None)

        with self._changed:
            self._changed.wait_for(lambda: self._is_over or found() is not None, timeout)
            match = found()
            why = "ended" if self._is_over else f"took over {timeout:g} s"
            assert match is not None, f"it {why} without {pattern!r}:\n{''.join(self._lines)}"
            return match

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself; after SIGSTOP, wait until it has stopped, or ended by itself before."""
        self._process.send_signal(number)
        if number == signal.SIGSTOP:  # each thread stops separately
            with contextlib.suppress(ChildProcessError):  # it has ended, and was waited for already
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def wait(self, timeout: float) -> int:
        """Wait for its end; return the exit status, negative for a signal.

        Raises:
            AssertionError: it takes longer than `timeout` seconds; the message holds the output.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {timeout:g} s:\n{self.output}") from error
        self._reader.join(_READ_TIMEOUT)
        return code

    def descendants(self) -> dict[int, str]:
        """Command lines of its running descendants, by pid."""
        children: dict[int, list[int]] = {}
        for pid, (owner, _) in _processes().items():
            children.setdefault(owner, []).append(pid)
        found: dict[int, str] = {}
        pending = list(children.get(self.pid, []))
        while pending:
            pid = pending.pop()
            found[pid] = _command_line(pid)
            pending += children.get(pid, [])
        return found

    def child(self, command: str) -> int:
        """The pid of the descendant whose command line contains `command`."""
        (pid,) = [pid for pid, line in self.descendants().items() if command in line]
        return pid

    def close(self) -> None:
        """Kill the process and its descendants that still run."""
        victims = [*self.descendants(), self.pid] if self._process.poll() is None else []
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(10)
        self._reader.join(_READ_TIMEOUT)
        if not self._reader.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Watch:
    """Waits for the end of processes that are not children of the test. Create it while they run."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors = {pid: os.pidfd_open(pid) for pid in pids}

    def left_after(self, timeout: float) -> list[int]:
        """Wait up to `timeout` seconds; return the pids that still run."""
        until = time.monotonic() + timeout
        left = []
        for pid, descriptor in self._descriptors.items():
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                left.append(pid)
            os.close(descriptor)
        self._descriptors.clear()
        return left


def run(
    *arguments: str, extra: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; standard output and standard error are separate."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        cwd=cwd,
        env=environment({SUPERVISOR_VARIABLE: str(os.getpid()), **(extra or {})}),
    )


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state by pid."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(folder.name)] = (int(owner), state)
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
