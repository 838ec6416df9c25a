"""Whether modules of actions can be imported, found out in a process of its own.

The supervisor imports no action: an action may start threads, change the process, or end it. The process reports each
step in a line of its output, on a descriptor that the modules do not know, and ends without waiting for their threads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from opstream.terminal.console import CommandError, printable

from .processes import describe_exit, die_with_supervisor

CHECK_COMMAND: Final = (sys.executable, "-P", "-c", "from opstream.local.action_check import main; main()")
"""The command of that process; the modules follow."""
_MARK: Final = "opstream check: "
_IMPORTING, _WRONG, _DONE = "importing ", "wrong ", "done "
_NOTICE_DELAY: Final = 2.0
"""Seconds of an import that a person takes for work."""
_TAIL_LINES: Final = 15


class ActionCheck:
    """What the output of that process says.

    Args:
        note: called with a line of text while an import lasts long.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._module = ""
        self._wrong = ""
        self._is_done = False
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._timer: asyncio.TimerHandle | None = None

    def read_line(self, line: str) -> None:
        """Read a line of the output."""
        step = line.removeprefix(_MARK)
        if step == line:
            if line:
                self._tail.append(line)
            return
        self.stop()
        if step.startswith(_IMPORTING):
            self._module = step.removeprefix(_IMPORTING)
            text = f"still importing {self._module}: nothing is started before that is done; Ctrl-C stops it"
            self._timer = asyncio.get_running_loop().call_later(_NOTICE_DELAY, self._note, text)
        elif step.startswith(_WRONG):
            self._wrong = step.removeprefix(_WRONG)
        else:
            self._is_done = True

    def stop(self) -> None:
        """Say nothing more about an import that lasts long."""
        if self._timer is not None:
            self._timer.cancel()

    def finish(self, code: int) -> None:
        """Judge the process, which has ended.

        Args:
            code: its exit status, negative for a signal.

        Raises:
            CommandError: the modules can't be used; the message says why.
        """
        self.stop()
        if self._wrong:
            raise CommandError(self._wrong)
        if self._is_done and code == 0:
            return
        where = f"while it imported {self._module!r}" if self._module else "before it imported anything"
        text = f"the process that imports the actions ended {where} ({describe_exit(code)})"
        if self._tail:
            raise CommandError("\n  ".join([f"{text}; its last lines:", *self._tail]))
        hint = ": does the module, or one that it imports, call os._exit()?" if self._module and code >= 0 else ""
        raise CommandError(f"{text}{hint}")


class _Report:
    """Writes the steps to the supervisor, whatever a module does to standard error."""

    def __init__(self) -> None:
        self._descriptors = (os.dup(2), 2)  # the second in case that a module closes all that it does not know

    @contextmanager
    def importing(self, module: str) -> Iterator[None]:
        """Report that an import begins."""
        self.write(_IMPORTING, module)
        yield

    def write(self, step: str, text: str = "") -> None:
        """Report a step, in one line that begins at the beginning of a line."""
        line = f"\n{_MARK}{step}{printable(text)}\n".encode()
        for descriptor in self._descriptors:
            with suppress(OSError):
                os.write(descriptor, line)
                return


def main() -> None:
    """Import the modules that the process was started with, report what is wrong with the first one that can't be, and
    end the process, with status 1 then.

    Raises:
        SystemExit: the supervisor is gone.
    """
    die_with_supervisor()
    report = _Report()
    status = 1
    try:
        status = _check(sys.argv[1:], report)
    except BaseException:  # noqa: BLE001 - this process must not wait for threads of a module
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a module may have put anything in its place
                stream.flush()
        os._exit(status)


def _check(modules: Sequence[str], report: _Report) -> int:
    sys.path.insert(0, str(Path.cwd()))
    from opstream_runner import InvalidAction
    from opstream_runner.authoring.action_modules import load_actions

    try:
        load_actions(modules, importing=report.importing)
    except InvalidAction as error:
        report.write(_WRONG, str(error))
        return 1
    report.write(_DONE)
    return 0
