"""Child processes of a supervisor: they are started, their output is read, and they are stopped in order.

Each child has a session of its own, so that Ctrl-C in a terminal reaches only the supervisor, which then stops the
children one after another. A child dies with its supervisor (`die_with_supervisor`). What a child has started and left
behind does not: it is not ours, so its end is not waited for either, even if it holds the output of the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import IO, Any, Final, Protocol

from opstream.terminal.console import PROCESS_COLOURS, CommandError, coloured, supports_colour

from .json_output import LineStream, end_error_text
from .pipe_holders import pipe_holders

_CHUNK: Final = 65_536
_MAX_LINE: Final = 65_536
_TAIL_LINES: Final = 15
_OUTPUT_TIMEOUT: Final = 0.5
"""Seconds to read the rest of the output after the end of a process."""

SUPERVISOR_VARIABLE: Final = "OPSTREAM_SUPERVISOR_PID"
"""Set by the supervisor in the environment of its children."""
CLOSE_SIGNAL: Final = signal.SIGUSR1
"""Asks several services in one process to stop the first of them, the one that takes new work, and no other yet."""
_PR_SET_PDEATHSIG: Final = 1

OnLine = Callable[[str], None]


class LineOutput(Protocol):
    """Where lines of several processes go."""

    def line(self, name: str, text: str) -> None:
        """Print a line of one process."""
        ...

    def plain(self, text: str, *, is_bold: bool = False) -> None:
        """Print a line that belongs to no process."""
        ...


class PrefixedOutput:
    """Lines of several processes on one stream, each with the name of its process in front."""

    def __init__(self, stream: IO[str], names: Sequence[str]) -> None:
        self._lines = LineStream(stream)
        self._has_colour = supports_colour(stream)
        width = max(map(len, names))
        self._prefixes = {
            name: coloured(f"{name:<{width}} | ", colour, has_colour=self._has_colour)
            for name, colour in zip(names, cycle(PROCESS_COLOURS), strict=False)
        }

    def line(self, name: str, text: str) -> None:
        """Print a line of one process."""
        self.plain(self._prefixes[name] + text)

    def plain(self, text: str, *, is_bold: bool = False) -> None:
        """Print a line that belongs to no process."""
        self._lines.write(coloured(text, None, has_colour=self._has_colour and is_bold, is_bold=True))


class ChildProcess:
    """One process. Made by `ChildProcess.start`.

    Attributes:
        name: its name in the output.
        tail: the last lines of its output.
        ended: done when it has ended and its output is read; the result is its `returncode`.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, output: int, on_line: OnLine) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = process
        self._output = output
        self._on_line = on_line
        self.ended: asyncio.Task[int] = asyncio.create_task(self._supervise(), name=f"child {name}")

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], *, environment: Mapping[str, str], on_line: OnLine
    ) -> ChildProcess:
        """Start a process, and call `on_line` with each line of its output and standard error.

        Raises:
            OSError: the process can't be started.
        """
        # A pipe of our own: asyncio's `wait` returns only when everything that holds its pipe has closed it.
        output, child_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=child_end,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(child_end)
        return cls(name, process, output, on_line)

    def terminate(self) -> None:
        """Send SIGTERM, if the process still runs."""
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and all others of its session."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and the event loop does not know it yet
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self, seconds: float) -> bool:
        """Send SIGTERM, and kill the process if it runs after `seconds`. Return True if it was not killed."""
        self.terminate()
        await asyncio.wait([self.ended], timeout=seconds)
        if self.ended.done():
            return True
        self.kill()
        await asyncio.wait([self.ended])
        return False

    async def _supervise(self) -> int:
        loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
        pipe = os.fdopen(self._output, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        reading = asyncio.create_task(self._read(stream), name=f"output of {self.name}")
        reading.add_done_callback(report_failure)
        try:
            code = await self._process.wait()
            await asyncio.wait([reading], timeout=_OUTPUT_TIMEOUT)
            if not reading.done():
                for holder in pipe_holders(self._output):
                    self._show(f"opstream: the {self.name} has ended, and what it started still runs: {holder}")
        finally:
            reading.cancel()
            transport.close()
        return code

    async def _read(self, stream: asyncio.StreamReader) -> None:
        partial = b""
        while chunk := await stream.read(_CHUNK):
            *lines, partial = (partial + chunk).split(b"\n")
            if len(partial) > _MAX_LINE:
                lines.append(partial)
                partial = b""
            for line in lines:
                self._handle_line(line)
        if partial:
            self._handle_line(partial)

    def _handle_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self.tail.append(text)
        self._show(text)

    def _show(self, text: str) -> None:
        try:
            self._on_line(text)
        except Exception as error:  # noqa: BLE001 - a process whose output is not read any more stands still
            context = {"message": f"a line of {self.name} can't be handled", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def report_failure(task: asyncio.Task[Any]) -> None:
    """Give the exception of a task that has ended to the handler of the event loop. For `Task.add_done_callback`."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        context = {"message": f"the task {task.get_name()!r} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


def describe_exit(code: int) -> str:
    """How a process ended, as text: its exit status, or the signal that killed it."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def end_error(child: ChildProcess, what: str) -> CommandError:
    """The error when a child has ended: its own error line if it printed one, otherwise its last lines."""
    how = f"{what} ({describe_exit(child.ended.result())})"
    errors = list(filter(None, map(end_error_text, child.tail)))
    if errors:
        return CommandError(f"{how}: {errors[-1]}")
    if not child.tail:
        return CommandError(f"{how} without any output")
    return CommandError("\n  ".join([f"{how}; its last lines:", *child.tail]))


async def stop_in_order(children: Sequence[tuple[ChildProcess, float]], note: Callable[[str], None]) -> None:
    """Stop processes one after another.

    Args:
        children: each with the seconds, counted from now, after which it is killed.
        note: called with a line of text for each process that was killed.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for child, until in children:
        if not await child.stop(max(0.0, begin + until - loop.time())):
            note(f"{child.name} did not stop in time and was killed")


def die_with_supervisor() -> None:
    """Have the kernel kill this process when the supervisor that started it dies. Without a supervisor nothing happens.

    The supervisor sets `SUPERVISOR_VARIABLE` to its process id. The child calls this function itself, since hardly any
    Python is safe between fork and exec. The setting is kept across `exec`, so it works for the broker, too. On other
    systems than Linux, children of a killed supervisor keep running.

    Raises:
        SystemExit: the supervisor is dead already.
    """
    supervisor = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if not supervisor or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit("opstream: error: the supervisor is gone")
