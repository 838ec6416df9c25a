"""An exclusive action for tests that kill processes. Like a user's module, runners import it from their working
directory.

Each attempt writes marks to a file, so that a checker sees which of them overlapped, independently of the journal.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from opstream import ActionContext, action

LEASE: Final = 1.0
MARKS: Final = "marks"


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """The action's input."""

    seconds: float = 0.0


@action("desk:use", lease=LEASE, max_attempts=50, exclusive="resource")
async def use(request: Work, ctx: ActionContext) -> int:
    """Use a desk for a while; only one operation may use it at a time."""
    _mark("begin", ctx)
    await asyncio.sleep(request.seconds)
    _mark("end", ctx)
    return ctx.attempt


class Mark(msgspec.Struct):
    """One line of the file."""

    what: str
    operation: str
    desk: str
    attempt: int
    pid: int
    at: float
    """Monotonic seconds, which all processes of a machine share."""


def read_marks(folder: Path) -> list[Mark]:
    """Return all marks, in the order in which they were written."""
    lines = (folder / MARKS).read_bytes().splitlines() if (folder / MARKS).exists() else []
    return [msgspec.json.decode(line, type=Mark) for line in lines]


def write_module(folder: Path) -> str:
    """Copy this module to where runners find it. Return its name."""
    (folder / "desks.py").write_bytes(Path(__file__).read_bytes())
    return "desks"


def _mark(what: str, ctx: ActionContext) -> None:
    mark = Mark(what, ctx.operation_id, ctx.resource_id, ctx.attempt, os.getpid(), time.monotonic())
    with Path(MARKS).open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(mark) + b"\n")
