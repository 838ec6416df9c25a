"""Actions for chaos runs: quick, slow, failing, crashing and stubborn ones. Runners import it as a user's module.

Each call of a handler leaves marks in a file, so that a checker can count calls and find overlaps. Each attempt puts
its number into what it records (`tests/support/system/invariants.py`).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from opstream import ActionContext, ActionError, Child, RetryAfter, action

LEASE: Final = 1.0
MANY: Final = 60
"""More attempts than any chaos run needs."""
FEW: Final = 3
CRASHED: Final = 86
"""Exit status of a process that its own action ended."""
MARKS: Final = Path("marks")
LARGE: Final = 300 * 1024
"""Bytes that don't fit into an event."""

BACKOFF: Final = 0.1
BACKOFF_MAX: Final = 0.5
TIMEOUT: Final = 0.5
DEADLINE: Final = 2.0
CONCURRENCY: Final = 2
RATE: Final = "10/s"

_STEPS: Final = 4
_FOREVER: Final = 3600.0


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """The input."""

    number: int
    seconds: float = 0.0
    """Duration of the whole work."""
    bad: int = 0
    """Number of attempts that fail, each in the action's own way."""
    filler: str = ""
    """Makes the input as large as a test needs it."""


class Done(msgspec.Struct):
    """The result, with the attempt's number."""

    number: int
    attempt: int
    filler: str = ""


class Answered(msgspec.Struct):
    """The result of an action that asks, with the attempt's number."""

    number: int
    attempt: int
    answers: list[int]


class Mark(msgspec.Struct):
    """One line of `MARKS`."""

    what: str
    """`begin`, `end` for a handler that returned, `left` for one that raised or was cancelled, `step NAME` for a call
    of the function of a step."""
    action: str
    operation: str
    attempt: int
    resource: str
    pid: int
    at: float
    """Monotonic seconds, which all processes of a machine share."""


@contextmanager
def marked(name: str, ctx: ActionContext) -> Iterator[None]:
    """Leave a mark at the beginning and one at the end."""
    _mark("begin", name, ctx)
    try:
        yield
    except BaseException:
        _mark("left", name, ctx)
        raise
    else:
        _mark("end", name, ctx)


def _mark(what: str, name: str, ctx: ActionContext) -> None:
    mark = Mark(what, name, ctx.operation_id, ctx.attempt, ctx.resource_id, os.getpid(), time.monotonic())
    # One write in append mode, so lines of several processes do not mix.
    descriptor = os.open(MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, msgspec.json.encode(mark) + b"\n")
    finally:
        os.close(descriptor)


def _pause(seconds: float) -> None:
    """Wait in a thread. `time.sleep` fails under libfaketime, with which a disaster sets a clock."""
    threading.Event().wait(seconds)


async def _work(request: Work, ctx: ActionContext) -> Done:
    for step in range(_STEPS):
        await ctx.progress(100 * step / _STEPS, f"attempt {ctx.attempt}, step {step}")
        await asyncio.sleep(request.seconds / _STEPS)
    return Done(request.number, ctx.attempt)


@action("chaos:quick", lease=LEASE, max_attempts=MANY)
async def quick(request: Work, ctx: ActionContext) -> Done:
    """Do nothing."""
    with marked("quick", ctx):
        return Done(request.number, ctx.attempt)


@action("chaos:large", lease=LEASE, max_attempts=MANY)
async def large(request: Work, ctx: ActionContext) -> Done:
    """Make more than an event takes in a step, and return it."""
    with marked("large", ctx):
        return Done(request.number, ctx.attempt, await ctx.step("fill", lambda: "x" * LARGE))


@action("chaos:slow", lease=LEASE, max_attempts=MANY)
async def slow(request: Work, ctx: ActionContext) -> Done:
    """Work in steps, and report each."""
    with marked("slow", ctx):
        return await _work(request, ctx)


@action("chaos:thread", lease=LEASE, max_attempts=MANY)
def thread(request: Work, ctx: ActionContext) -> Done:
    """Work in steps, in a thread."""
    with marked("thread", ctx):
        for step in range(_STEPS):
            ctx.progress(100 * step / _STEPS, f"attempt {ctx.attempt}, step {step}")
            _pause(request.seconds / _STEPS)
        return Done(request.number, ctx.attempt)


@action("chaos:isolated", lease=LEASE, max_attempts=MANY, isolation="process")
def isolated(request: Work, ctx: ActionContext) -> Done:
    """Work in steps, in a child process."""
    with marked("isolated", ctx):
        for step in range(_STEPS):
            ctx.progress(100 * step / _STEPS, f"attempt {ctx.attempt}, step {step}")
            _pause(request.seconds / _STEPS)
        return Done(request.number, ctx.attempt)


@action("chaos:fail", lease=LEASE, max_attempts=MANY)
async def fail(request: Work, ctx: ActionContext) -> Done:
    """Fail with an action's error."""
    with marked("fail", ctx):
        await asyncio.sleep(request.seconds)
        raise ActionError("Meant", f"attempt {ctx.attempt} of {request.number}")


@action("chaos:patient", lease=LEASE, max_attempts=MANY, cancel_grace=5)
async def patient(request: Work, ctx: ActionContext) -> Done:
    """Wait until canceled, then clean up for a moment."""
    with marked("patient", ctx):
        try:
            await asyncio.sleep(_FOREVER)
        finally:
            await asyncio.sleep(request.seconds)
        return Done(request.number, ctx.attempt)


@action("chaos:crash", lease=LEASE, max_attempts=FEW)
async def crash(request: Work, ctx: ActionContext) -> Done:
    """End the runner's process."""
    with marked("crash", ctx):
        if ctx.attempt <= request.bad:
            os._exit(CRASHED)
        return Done(request.number, ctx.attempt)


@action("chaos:flaky", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX)
async def flaky(request: Work, ctx: ActionContext) -> Done:
    """Raise an unexpected error in some attempts."""
    with marked("flaky", ctx):
        if ctx.attempt <= request.bad:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return Done(request.number, ctx.attempt)


@action("chaos:stepping", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX)
async def stepping(request: Work, ctx: ActionContext) -> Done:
    """Three steps, and a fourth that must run at most once; fail behind them in some attempts."""

    def part(number: int, total: int) -> int:
        _mark(f"step part {number}", "stepping", ctx)
        return total + number

    with marked("stepping", ctx):
        total = 0
        for number in range(1, 4):
            total = await ctx.step("part", part, number, total, key=number)
            await asyncio.sleep(request.seconds / 3)
        assert await ctx.step("once", part, 0, total, at_most_once=True) == 6
        if ctx.attempt <= request.bad:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return Done(request.number, ctx.attempt)


@action(
    "chaos:stepping-apart",
    lease=LEASE,
    max_attempts=MANY,
    backoff=BACKOFF,
    backoff_max=BACKOFF_MAX,
    isolation="process",
)
def stepping_apart(request: Work, ctx: ActionContext) -> Done:
    """The same in a plain handler, in a child process."""

    def part(number: int, total: int) -> int:
        _mark(f"step part {number}", "stepping-apart", ctx)
        return total + number

    with marked("stepping-apart", ctx):
        total = 0
        for number in range(1, 4):
            total = ctx.step("part", part, number, total, key=number)
            _pause(request.seconds / 3)
        assert ctx.step("once", part, 0, total, at_most_once=True) == 6
        if ctx.attempt <= request.bad:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return Done(request.number, ctx.attempt)


@action("chaos:parent", lease=LEASE, max_attempts=MANY)
async def parent(request: Work, ctx: ActionContext) -> Done:
    """Have a child work."""
    with marked("parent", ctx):
        await ctx.run("chaos:slow", Work(request.number, request.seconds))
        return Done(request.number, ctx.attempt)


@action("chaos:hasty", lease=LEASE, max_attempts=MANY)
async def hasty(request: Work, ctx: ActionContext) -> Done:
    """Have two children, of which one fails and the other would go on for ever."""
    with marked("hasty", ctx):
        await ctx.run_all([Child("chaos:fail", Work(1, seconds=0.2)), Child("chaos:patient", Work(2))])
        return Done(request.number, ctx.attempt)


@action(
    "chaos:napping",
    lease=LEASE,
    max_attempts=MANY,
    backoff=BACKOFF,
    backoff_max=BACKOFF_MAX,
    exclusive="resource",
    exclusive_group="naps",
)
async def napping(request: Work, ctx: ActionContext) -> Done:
    """Sleep twice, without the resource and with it, and do a step after each; fail behind them in some attempts."""

    def part(number: int) -> int:
        _mark(f"step part {number}", "napping", ctx)
        return number

    with marked("napping", ctx):
        for number in (1, 2):
            await ctx.sleep(request.seconds, key=number, hold=number == 2)
            await ctx.step("part", part, number, key=number)
        if ctx.attempt <= request.bad:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return Done(request.number, ctx.attempt)


@action("chaos:asking", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX)
async def asking(request: Work, ctx: ActionContext) -> Answered:
    """Wait for two signals, one after the other; fail behind them in some attempts."""
    with marked("asking", ctx):
        answers = [await ctx.wait_for(f"answer-{number}", int) for number in (1, 2)]
        if ctx.attempt <= request.bad:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return Answered(request.number, ctx.attempt, answers)


@action("chaos:sorry", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX, clean_up=True)
async def sorry(request: Work, ctx: ActionContext) -> Done:
    """Take something, sleep, and keep it; canceled, give it back in two steps."""

    def part(name: str) -> str:
        _mark(f"step {name}", "sorry", ctx)
        return name

    with marked("sorry", ctx):
        try:
            await ctx.step("take", part, "take")
            await ctx.sleep(request.seconds)
            await ctx.step("keep", part, "keep")
        except asyncio.CancelledError:
            await ctx.step("give", part, "give")
            await ctx.step("tell", part, "tell")
            raise
        return Done(request.number, ctx.attempt)


@action("chaos:ranked", lease=LEASE, max_attempts=MANY, priority="normal")
async def ranked(request: Work, ctx: ActionContext) -> Done:
    """Work in one of three queues."""
    with marked("ranked", ctx):
        await asyncio.sleep(request.seconds)
        return Done(request.number, ctx.attempt)


@action("chaos:throttled", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX)
async def throttled(request: Work, ctx: ActionContext) -> Done:
    """Raise `RetryAfter` in some attempts."""
    with marked("throttled", ctx):
        if ctx.attempt <= request.bad:
            raise RetryAfter(request.seconds, f"attempt {ctx.attempt}")
        return Done(request.number, ctx.attempt)


@action("chaos:hopeless", lease=LEASE, max_attempts=FEW, backoff=BACKOFF, backoff_max=BACKOFF_MAX)
async def hopeless(request: Work, ctx: ActionContext) -> Done:
    """Raise an unexpected error in every attempt."""
    with marked("hopeless", ctx):
        raise RuntimeError(f"attempt {ctx.attempt} of {request.number}")


@action("chaos:timed", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX, timeout=TIMEOUT)
async def timed(request: Work, ctx: ActionContext) -> Done:
    """Exceed the timeout in some attempts."""
    with marked("timed", ctx):
        await asyncio.sleep(_FOREVER if ctx.attempt <= request.bad else 0)
        return Done(request.number, ctx.attempt)


@action("chaos:late", lease=LEASE, max_attempts=MANY, deadline=DEADLINE)
async def late(request: Work, ctx: ActionContext) -> Done:
    """Exceed the operation's deadline, or not."""
    with marked("late", ctx):
        await asyncio.sleep(request.seconds)
        return Done(request.number, ctx.attempt)


@action("chaos:alone", lease=LEASE, max_attempts=MANY, exclusive="resource")
async def alone(request: Work, ctx: ActionContext) -> Done:
    """Work on a resource exclusively; others wait in its queue."""
    with marked("alone", ctx):
        return await _work(request, ctx)


@action(
    "chaos:stumbling", lease=LEASE, max_attempts=MANY, backoff=BACKOFF, backoff_max=BACKOFF_MAX, exclusive="resource"
)
async def stumbling(request: Work, ctx: ActionContext) -> Done:
    """Fail in some attempts, and keep the resource until the next one."""
    with marked("stumbling", ctx):
        if ctx.attempt <= request.bad:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return Done(request.number, ctx.attempt)


@action("chaos:desk", lease=LEASE, max_attempts=MANY, exclusive="resource", exclusive_group="desk")
async def desk(request: Work, ctx: ActionContext) -> Done:
    """Work on a resource that two other actions also use."""
    with marked("desk", ctx):
        return await _work(request, ctx)


@action(
    "chaos:picky", lease=LEASE, max_attempts=MANY, exclusive="resource", exclusive_group="desk", on_conflict="reject"
)
async def picky(request: Work, ctx: ActionContext) -> Done:
    """Work on that resource, or be rejected if it is in use."""
    with marked("picky", ctx):
        return await _work(request, ctx)


@action(
    "chaos:takeover",
    lease=LEASE,
    max_attempts=MANY,
    exclusive="resource",
    exclusive_group="desk",
    on_conflict="replace",
)
async def takeover(request: Work, ctx: ActionContext) -> Done:
    """Work on that resource, and replace its user."""
    with marked("takeover", ctx):
        return await _work(request, ctx)


@action("chaos:limited", lease=LEASE, max_attempts=MANY, max_concurrency=CONCURRENCY)
async def limited(request: Work, ctx: ActionContext) -> Done:
    """Work, with a limit of concurrent operations."""
    with marked("limited", ctx):
        return await _work(request, ctx)


@action("chaos:paced", lease=LEASE, max_attempts=MANY, rate=RATE)
async def paced(request: Work, ctx: ActionContext) -> Done:
    """Work, with a limited rate of starts."""
    with marked("paced", ctx):
        return Done(request.number, ctx.attempt)


def write_module(folder: Path) -> str:
    """Copy this module into a folder, as a user's module; return its name."""
    source = Path(__file__)
    (folder / source.name).write_bytes(source.read_bytes())
    return source.stem
