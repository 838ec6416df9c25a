"""Actions for tests that kill processes. A user's module: runners import it from their working directory.

Each attempt puts its number into its progress, result and failure. So the journal alone shows whether an earlier
attempt recorded something after a later one had started.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path
from typing import Any, Final

import msgspec

import opstream
from opstream import ActionContext, ActionError, action

LEASE: Final = 1.0
STEPS: Final = 5
CHILDREN: Final = 4

_CLEANS_UP: Final[dict[str, Any]] = {"clean_up": True} if "clean_up" in inspect.signature(action).parameters else {}
"""No release up to 0.6.0 has the option."""


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """The input."""

    number: int
    pause: float = 0.0
    """Seconds of each step."""
    nap: float = 0.0
    """Seconds of a sleep that ends the attempt; only of `kill:steps`."""
    filler: str = ""
    """Makes the input as large as a test needs it."""


class Done(msgspec.Struct):
    """The result, with the attempt's number."""

    number: int
    attempt: int


@action("kill:quick", lease=LEASE, max_attempts=50)
async def quick(request: Work, ctx: ActionContext) -> Done:
    """Do nothing."""
    return Done(request.number, ctx.attempt)


@action("kill:slow", lease=LEASE, max_attempts=50)
async def slow(request: Work, ctx: ActionContext) -> Done:
    """Work in steps, and report each."""
    for step in range(STEPS):
        await ctx.progress(100 * step / STEPS, f"attempt {ctx.attempt}, step {step}")
        await asyncio.sleep(request.pause)
    return Done(request.number, ctx.attempt)


@action("kill:steps", lease=LEASE, max_attempts=50)
async def steps(request: Work, ctx: ActionContext) -> Done:
    """Do two things once, and then wait; the calls are noted. The release before steps fails here."""

    def note(number: int) -> int:
        with Path(f"data/steps-{ctx.operation_id}").open("a", encoding="utf-8") as file:
            file.write(f"{number}\n")
        return number

    total = await ctx.step("first", note, 1) + await ctx.step("second", note, 2)
    if request.nap:
        await ctx.sleep(request.nap)
    await ctx.progress(50, f"attempt {ctx.attempt}, two steps")
    await asyncio.sleep(request.pause)
    if ctx.attempt == 1 and not request.pause:
        raise OSError("once more")
    return Done(request.number + total - 3, ctx.attempt)


@action("kill:family", lease=LEASE, max_attempts=50)
async def family(request: Work, ctx: ActionContext) -> Done:
    """Have others work in steps. The release before children fails here."""
    children = [opstream.Child("kill:slow", Work(number, request.pause)) for number in range(CHILDREN)]
    await ctx.run_all(children, fail="all")
    return Done(request.number, ctx.attempt)


@action("kill:ask", lease=LEASE, max_attempts=50, **_CLEANS_UP)
async def ask(request: Work, ctx: ActionContext) -> Done:
    """Wait for a number; canceled, note that. The release before signals fails here."""

    def note() -> None:
        Path(f"data/canceled-{ctx.operation_id}").touch()

    try:
        return Done(await ctx.wait_for("answer", int), ctx.attempt)
    except asyncio.CancelledError:
        await ctx.step("note", note)
        raise


def _capitals(path: Path) -> None:
    path.write_bytes(path.read_bytes().upper())


@action("kill:files", lease=LEASE, max_attempts=50)
async def files(request: Work, ctx: ActionContext) -> Done:
    """Add the client's file in capitals. The release before files fails here."""
    path = Path(f"data/files-{ctx.operation_id}")
    await ctx.fetch("note.txt", path)
    await ctx.step("capitals", _capitals, path)
    await ctx.attach(path, "text/plain", name="loud.txt")
    return Done(request.number, ctx.attempt)


@action("kill:thread", lease=LEASE, max_attempts=50)
def thread(request: Work, ctx: ActionContext) -> Done:
    """Work in steps, in a thread, and report each."""
    for step in range(STEPS):
        ctx.progress(100 * step / STEPS, f"attempt {ctx.attempt}, step {step}")
        time.sleep(request.pause)
    return Done(request.number, ctx.attempt)


@action("kill:fail", lease=LEASE, max_attempts=50)
async def fail(request: Work, ctx: ActionContext) -> Done:
    """Fail with an action's error."""
    await asyncio.sleep(request.pause)
    raise ActionError("Meant", f"attempt {ctx.attempt} of {request.number}")


@action("kill:held", lease=LEASE)
async def held(request: Work, ctx: ActionContext) -> Done:
    """Never end in the first attempt; end at once in the second."""
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return Done(request.number, ctx.attempt)


@action("kill:stuck", lease=LEASE)
def stuck(request: Work, ctx: ActionContext) -> Done:
    """The same in a thread."""
    while ctx.attempt == 1:
        time.sleep(3600)
    return Done(request.number, ctx.attempt)


def write_module(folder: Path) -> str:
    """Copy this module into a folder, as a user's module; return its name."""
    source = Path(__file__)
    (folder / source.name).write_bytes(source.read_bytes())
    return source.stem
