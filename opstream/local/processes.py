"""Child processes of a supervisor: started, listened to, stopped in order. Called by `up`; knows nothing of opstream.

Each child is in a session of its own, so that Ctrl-C in a terminal reaches the supervisor only, which then stops the
children one after the other.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

from opstream.terminal.console import COLOURS, coloured, supports_colour

_CHUNK: Final = 65_536
_MAX_LINE: Final = 65_536
_TAIL_LINES: Final = 15
_OUTPUT_TIMEOUT: Final = 0.5

OnLine = Callable[[str], None]


class PrefixedOutput:
    """Lines of several processes on one stream, each with the name of its process in front.

    Nobody reading any more (`… | head -1`, a closed terminal) ends the output, not the processes.
    """

    def __init__(self, stream: IO[str], names: Sequence[str]) -> None:
        self._stream: IO[str] | None = stream
        self._is_coloured = supports_colour(stream)
        width = max(map(len, names))
        self._prefixes = {
            name: coloured(f"{name:<{width}} | ", COLOURS[index % len(COLOURS)], is_on=self._is_coloured)
            for index, name in enumerate(names)
        }

    def line(self, name: str, text: str) -> None:
        """Print a line of one process."""
        self.plain(self._prefixes[name] + text)

    def plain(self, text: str, *, is_bold: bool = False) -> None:
        """Print a line that is nobody's."""
        if self._stream is None:
            return
        try:
            print(
                coloured(text, None, is_on=self._is_coloured and is_bold, is_bold=True), file=self._stream, flush=True
            )
        except OSError:
            # What is still in its buffer must not fail when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = None


class ChildProcess:
    """One process. Made by `ChildProcess.start`.

    Attributes:
        name: what it is called in the output.
        tail: its last lines.
        ended: done once it has ended and its output is read; the result is what `returncode` of asyncio is.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: OnLine) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = process
        self._on_line = on_line
        self.ended: asyncio.Task[int] = asyncio.create_task(self._supervise(), name=f"child {name}")

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], *, environment: Mapping[str, str], on_line: OnLine
    ) -> ChildProcess:
        """Start a process; `on_line` gets each line of its output, standard error included.

        Raises:
            OSError: it can't be started.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        return cls(name, process, on_line)

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it, and what it has started in its session, at once."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self, seconds: float) -> bool:
        """Ask it to end, and kill it if it has not after `seconds`; whether it ended by itself."""
        self.terminate()
        await asyncio.wait([self.ended], timeout=seconds)
        if self.ended.done():
            return True
        self.kill()
        await asyncio.wait([self.ended])
        return False

    async def _supervise(self) -> int:
        reading = asyncio.create_task(self._read(), name=f"output of {self.name}")
        code = await self._process.wait()
        # Its own children may hold the pipe open for as long as they like.
        await asyncio.wait([reading], timeout=_OUTPUT_TIMEOUT)
        reading.cancel()
        return code

    async def _read(self) -> None:
        pipe = self._process.stdout
        if pipe is None:
            return
        begun = b""
        while chunk := await pipe.read(_CHUNK):
            *lines, begun = (begun + chunk).split(b"\n")
            if len(begun) > _MAX_LINE:
                lines.append(begun)
                begun = b""
            for line in lines:
                self._handle_line(line)
        if begun:
            self._handle_line(begun)

    def _handle_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self.tail.append(text)
        self._on_line(text)


def describe_exit(code: int) -> str:
    """How a process ended, for a person."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def stop_in_order(children: Sequence[tuple[ChildProcess, float]], note: Callable[[str], None]) -> None:
    """Stop processes one after the other.

    Args:
        children: each with the seconds, counted from now, after which it is killed.
        note: told whom that happened to.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for child, until in children:
        if not await child.stop(max(0.0, begin + until - loop.time())):
            note(f"{child.name} did not stop in time and was killed")


SUPERVISOR_VARIABLE: Final = "OPSTREAM_SUPERVISOR_PID"

_PR_SET_PDEATHSIG: Final = 1


def die_with_supervisor() -> None:
    """Tie this process to the supervisor that started it, if one did. Ends it at once if that is gone already."""
    supervisor = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if not supervisor or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit("opstream: error: the supervisor is gone")
