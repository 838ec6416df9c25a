"""Actions with steps, in the runner and in processes of their own: `step:NAME` and `step:NAME-apart`.

Each call of a step's function writes a line into the file that the input names: the only count of how often it ran.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from opstream_runner import ActionContext, action


class Work(msgspec.Struct):
    """What to do."""

    file: str
    """Where the calls of functions are noted."""
    how: str = ""
    """`fail` or `die` after the steps in the first attempt; `hang` in the middle of the second step."""
    changed: bool = False
    """Give the second step another argument in each attempt."""
    once: bool = False
    """The second step must run at most once."""
    size: int = 0
    """Bytes of the second step's result, besides."""


class Part(msgspec.Struct):
    """The result of a step."""

    name: str
    number: int
    rest: str = ""


def note(file: str, text: str) -> None:
    """Write a line."""
    with Path(file).open("a") as lines:
        lines.write(f"{text}\n")


def calls(file: Path) -> list[str]:
    """The lines so far."""
    return file.read_text().split("\n")[:-1] if file.exists() else []


def one(file: str) -> Part:
    """The first step."""
    note(file, "one")
    return Part("one", 1)


def two(file: str, part: Part, attempt: int, how: str, size: int) -> Part:
    """The second step."""
    note(file, "two")
    if how == "hang":
        signal.pause() if attempt == 1 else None
    if how == "die-inside" and attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return Part("two", part.number + 1, "x" * size)


async def two_later(file: str, part: Part, attempt: int, how: str, size: int) -> Part:
    """The same as a coroutine."""
    note(file, "two")
    if how == "hang" and attempt == 1:
        await asyncio.Event().wait()
    return Part("two", part.number + 1, "x" * size)


def end(request: Work, ctx: ActionContext, first: Part, second: Part) -> Any:
    """What a handler does after its steps."""
    note(request.file, f"end {ctx.attempt}")
    if request.how == "fail" and ctx.attempt == 1:
        raise OSError("the first attempt")
    if request.how == "die" and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"attempt": ctx.attempt, "first": first, "second": second}


async def handle(request: Work, ctx: ActionContext) -> Any:
    """Two steps and an end, in an async handler."""
    first = await ctx.step("one", one, request.file)
    seen = ctx.attempt if request.changed or request.how else 1
    second = await ctx.step(
        "two",
        two_later,
        request.file,
        first,
        seen,
        request.how,
        request.size,
        at_most_once=request.once,
        on_changed=None if request.changed else "keep",
    )
    return end(request, ctx, first, second)


def handle_plain(request: Work, ctx: ActionContext) -> Any:
    """The same in a plain one."""
    first = ctx.step("one", one, request.file)
    seen = ctx.attempt if request.changed or request.how else 1
    second = ctx.step(
        "two",
        two,
        request.file,
        first,
        seen,
        request.how,
        request.size,
        at_most_once=request.once,
        on_changed=None if request.changed else "keep",
    )
    return end(request, ctx, first, second)


class Naps(msgspec.Struct):
    """What `step:naps` does."""

    file: str
    seconds: tuple[float, ...] = (0.3, 0.3)
    hold: bool = False
    swallow: bool = False
    """Catch every `Exception` around the sleeps."""


async def nap(request: Naps, ctx: ActionContext) -> Any:
    """A step, and then a sleep, for each of the times."""
    try:
        for number, seconds in enumerate(request.seconds):
            await ctx.step("note", note, request.file, f"step {number}", key=number)
            await ctx.sleep(seconds, key=number, hold=request.hold)
    except Exception:
        if not request.swallow:
            raise
    finally:
        note(request.file, f"unwound {ctx.attempt}")
    return ctx.attempt


def nap_plain(request: Naps, ctx: ActionContext) -> Any:
    """The same in a plain handler."""
    try:
        for number, seconds in enumerate(request.seconds):
            ctx.step("note", note, request.file, f"step {number}", key=number)
            ctx.sleep(seconds, key=number, hold=request.hold)
    finally:
        note(request.file, f"unwound {ctx.attempt}")
    return ctx.attempt


async def forget(request: Work, ctx: ActionContext) -> None:
    """Lacks an `await`."""
    ctx.step("one", one, request.file)


forget_apart = action("step:forgets-apart", isolation="process")(forget)
nap_in_loop = action("step:naps", lease=1.0, max_attempts=1)(nap)
nap_in_thread = action("step:naps-plain", lease=1.0, max_attempts=1)(nap_plain)
nap_apart = action("step:naps-apart", isolation="process", max_attempts=1)(nap)
nap_plain_apart = action("step:naps-plain-apart", isolation="process", max_attempts=1)(nap_plain)
nap_alone = action("step:naps-alone", exclusive="resource", lease=1.0)(nap)
in_loop = action("step:async", backoff=0.05, lease=1.0)(handle)
in_thread = action("step:plain", backoff=0.05, lease=1.0)(handle_plain)
in_loop_apart = action("step:async-apart", isolation="process", backoff=0.05, cancel_grace=0.5)(handle)
in_thread_apart = action("step:plain-apart", isolation="process", backoff=0.05, cancel_grace=0.5)(handle_plain)
