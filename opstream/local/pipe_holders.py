"""Which processes of this machine hold the other end of a pipe: those that write to it still."""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from pathlib import Path
from typing import Final

from opstream.terminal.console import printable

_SHOWN: Final = 5
"""How many are named."""
_LONGEST: Final = 80
"""Characters of a command line that are shown."""


def pipe_holders(pipe: int) -> list[str]:
    """The command lines and ids of other processes that hold a pipe of this process, a few at most.

    Only those of this user, and only where there is `/proc`: on other systems it is an empty list.
    """
    try:
        inode = os.fstat(pipe).st_ino
    except OSError:  # it was closed just now, since nothing holds the other end any more
        return []
    holders = (one for one in _processes() if int(one.name) != os.getpid() and _holds(one, inode))
    return [f"{_command_line(one)} (pid {one.name})" for one in islice(holders, _SHOWN)]


def _processes() -> list[Path]:
    try:
        return [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    except OSError:
        return []


def _holds(folder: Path, inode: int) -> bool:
    with contextlib.suppress(OSError):  # it has ended, or it is another user's
        for descriptor in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.readlink().name == f"pipe:[{inode}]":
                    return True
    return False


def _command_line(folder: Path) -> str:
    with contextlib.suppress(OSError):
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return printable(" ".join(words).strip())[:_LONGEST]
    return "a process"
