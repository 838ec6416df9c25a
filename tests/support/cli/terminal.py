"""Actions that wait for the test, and `opstream` on a pseudo-terminal.

write_module(folder)
system = System(folder, stack, MODULE)
… opstream run job:wait --operation-id a
open_gate(folder, "a")
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from opstream.local.processes import SUPERVISOR_VARIABLE
from tests.support.system.processes import COMMAND, START_TIMEOUT, environment

MODULE: Final = "gated"
ACTIONS: Final = '''\
"""Actions that wait for a file named after their operation."""
import asyncio
from pathlib import Path

import msgspec

from opstream import ActionContext, ActionError, action


class Job(msgspec.Struct, forbid_unknown_fields=True):
    code: str = ""


class Done(msgspec.Struct):
    operation: str
    title: str


@action("job:wait")
async def wait(request: Job, ctx: ActionContext) -> Done:
    """Tell of half the work, wait for the test, and end as asked."""
    await ctx.progress(50, "half \\x1b[31mred")
    while not Path(f"open-{ctx.operation_id}").exists():
        await asyncio.sleep(0.02)
    if request.code:
        raise ActionError(request.code, "it \\nbroke")
    return Done(ctx.operation_id, "Möwe")
'''


def write_module(folder: Path) -> None:
    """Write the actions into a folder."""
    (folder / f"{MODULE}.py").write_text(ACTIONS, encoding="utf-8")


def open_gate(folder: Path, operation_id: str) -> None:
    """Release an operation, also one that is not submitted yet."""
    (folder / f"open-{operation_id}").touch()


class Terminal:
    """An `opstream` command whose streams are all one terminal.

    Args:
        arguments: the command's name and options.
        extra: further environment variables.
        columns: of the terminal.
        is_stdout: True if stdout is the terminal too, and not a pipe.
    """

    def __init__(
        self, *arguments: str, extra: Mapping[str, str] | None = None, columns: int = 80, is_stdout: bool = True
    ) -> None:
        self._changed = threading.Condition()
        self._output = b""
        self._is_over = False
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        env = environment({SUPERVISOR_VARIABLE: str(os.getpid()), "TERM": "xterm", **(extra or {})})
        if "NO_COLOR" not in (extra or {}):
            env.pop("NO_COLOR", None)
        out = slave if is_stdout else subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                [*COMMAND, *arguments], stdin=slave, stdout=out, stderr=slave, env=env, start_new_session=True
            )
        finally:
            os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Its output on the terminal so far, including escape sequences."""
        with self._changed:
            return self._shown()

    def wait_for(self, text: str, timeout: float = START_TIMEOUT) -> None:
        """Wait until the output contains a text.

        Raises:
            AssertionError: the output ended, or `timeout` seconds passed; the message holds the output.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or text.encode() in self._output, timeout)
            assert text.encode() in self._output, self._output

    def wait_for_after(self, text: str, position: int, timeout: float = START_TIMEOUT) -> None:
        """As `wait_for`, in the output from a position on."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or text in self._shown()[position:], timeout)
            assert text in self._shown()[position:], self._output

    def _shown(self) -> str:
        return self._output.decode(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Wait for its end; return the exit status."""
        code = self._process.wait(timeout)
        self._reader.join(5)
        return code

    def stdout(self) -> bytes:
        """Its output to the pipe, once it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(5)
        os.close(self._master)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._master, 65_536)
            except OSError:  # Linux raises this once the other side is closed
                part = b""
            with self._changed:
                self._output += part
                self._is_over = not part
                self._changed.notify_all()
            if not part:
                return
