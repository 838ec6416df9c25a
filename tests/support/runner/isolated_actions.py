"""Actions that run in processes of their own: `iso:plain`, `iso:async` and `iso:traced` do what their input says.

They report their start as progress (1 percent), and write marks to a file. Use them with
`--actions tests.support.runner.isolated_actions`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from opstream_runner import ActionCanceledError, ActionContext, ActionError, RetryAfter, action

GRACE: Final = 0.4
"""Seconds for clean-up."""
FOREVER: Final = 600


class Work(msgspec.Struct):
    """What to do, and the file for marks."""

    how: str = "tell"
    file: str = ""


def mark(request: Work, text: str) -> None:
    """Write a mark."""
    with Path(request.file).open("a") as file:
        file.write(f"{text}\n")


def tell(request: Work, ctx: ActionContext) -> Any:
    """Write the process, its group and the context's values."""
    return {
        "pid": os.getpid(),
        "group": os.getpgrp(),
        "attempt": ctx.attempt,
        "operation": ctx.operation_id,
        "resource": ctx.resource_id,
        "trace": ctx.traceparent,
        "canceled": ctx.cancel_requested,
    }


def fail(request: Work, ctx: ActionContext) -> None:
    """Fail on purpose."""
    raise ActionError("Meant", "as \ud800 meant", target="how")


def break_down(request: Work, ctx: ActionContext) -> None:
    """Fail by mistake, after printing and logging."""
    print("printed in the child", flush=True)
    logging.getLogger("isolated").warning("logged in the child")
    raise OSError("secret")


def postpone(request: Work, ctx: ActionContext) -> None:
    """Raise RetryAfter."""
    raise RetryAfter(0.3, "as \ud800 meant")


def fill(request: Work, ctx: ActionContext) -> str:
    """Return a result beyond the limit."""
    return "x" * 20_000


def step(request: Work, ctx: ActionContext) -> str:
    """Report progress much more often than it is recorded."""
    for n in range(1000):
        ctx.progress(40 + n / 1000, f"step {n}")
    ctx.progress(80, "\ud800" * 5000)
    return "done"


def crash(request: Work, ctx: ActionContext) -> None:
    """Touch memory that is not there."""
    ctypes.string_at(0)


def leave(request: Work, ctx: ActionContext) -> None:
    """End the process."""
    os._exit(3)


def babble(request: Work, ctx: ActionContext) -> None:
    """Write an invalid short message into the channel."""
    os.write(int(sys.argv[1]), b"\0\0\0\1x")
    time.sleep(FOREVER)


def babble_on(request: Work, ctx: ActionContext) -> None:
    """Write the header of a message of four gigabytes into the channel."""
    os.write(int(sys.argv[1]), b"\xff" * 1000)
    time.sleep(FOREVER)


def terminate(request: Work, ctx: ActionContext) -> None:
    """Get SIGTERM, but not from the runner."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FOREVER)


def run_a_loop(request: Work, ctx: ActionContext) -> str:
    """Run an event loop in a plain handler."""

    async def main() -> str:
        return "looped"

    return asyncio.run(main())


def breed(request: Work, ctx: ActionContext) -> str:
    """Return while a child process still runs."""
    mark(request, str(subprocess.Popen(["sleep", str(FOREVER)]).pid))
    return "left one behind"


def stay(request: Work, ctx: ActionContext) -> None:
    """Work until interrupted, with a child process."""
    mark(request, str(os.getpid()))
    mark(request, str(subprocess.Popen(["sleep", str(FOREVER)]).pid))
    ctx.progress(1)
    time.sleep(FOREVER)


def stay_once(request: Work, ctx: ActionContext) -> int:
    """Do `stay` in the first attempt only."""
    if ctx.attempt == 1:
        stay(request, ctx)
    return ctx.attempt


def hold_the_lock_once(request: Work, ctx: ActionContext) -> int:
    """In the first attempt, hold the interpreter's lock for a long time."""
    if ctx.attempt == 1:
        mark(request, str(os.getpid()))
        re.match("(a+)+$", "a" * 40 + "b")
    return ctx.attempt


def clean_up(request: Work, ctx: ActionContext) -> None:
    """Work until interrupted, and then clean up."""
    try:
        ctx.progress(1)
        time.sleep(FOREVER)
    except Exception:  # noqa: BLE001 - it must not catch an ActionCanceledError
        mark(request, "swallowed")
    finally:
        mark(request, f"cleaned up, cancel requested: {ctx.cancel_requested}")


def clean_up_for_ever(request: Work, ctx: ActionContext) -> None:
    """Work until interrupted, and then clean up without end."""
    try:
        ctx.progress(1)
        time.sleep(FOREVER)
    finally:
        mark(request, "cleaning up")
        time.sleep(FOREVER)


def ignore(request: Work, ctx: ActionContext) -> None:
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctx.progress(1)
    time.sleep(FOREVER)


def finish(request: Work, ctx: ActionContext) -> str:
    """Return when interrupted."""
    with contextlib.suppress(ActionCanceledError):
        ctx.progress(1)
        time.sleep(FOREVER)
    return "finished"


def give_up(request: Work, ctx: ActionContext) -> None:
    """Fail when interrupted."""
    try:
        ctx.progress(1)
        time.sleep(FOREVER)
    except ActionCanceledError:
        raise ActionError("Half", "half done") from None


def escape(request: Work, ctx: ActionContext) -> None:
    """Start a process in a session of its own, and a daemon; write their process ids."""
    command = ["sleep", str(FOREVER)]
    mark(request, str(subprocess.Popen(command, start_new_session=True).pid))
    # The shell ends at once, so that the process has lost its parent, and is in another session.
    daemon = f"setsid sleep {FOREVER} >/dev/null 2>&1 & echo $!"
    mark(request, subprocess.run(["sh", "-c", daemon], capture_output=True, text=True, check=True).stdout.strip())


def escape_and_return(request: Work, ctx: ActionContext) -> str:
    """Leave both behind."""
    escape(request, ctx)
    return "left them"


def escape_and_crash(request: Work, ctx: ActionContext) -> None:
    """Leave both behind, without any clean-up."""
    escape(request, ctx)
    crash(request, ctx)


def escape_and_stay(request: Work, ctx: ActionContext) -> None:
    """Work until interrupted."""
    escape(request, ctx)
    ctx.progress(1)
    time.sleep(FOREVER)


def escape_and_ignore(request: Work, ctx: ActionContext) -> None:
    """Work until killed."""
    escape(request, ctx)
    ignore(request, ctx)


HOW: Final[dict[str, Callable[[Work, ActionContext], Any]]] = {
    one.__name__: one
    for one in (
        tell, fail, break_down, postpone, fill, step, crash, leave, babble, babble_on, terminate, run_a_loop, breed,
        stay, stay_once, hold_the_lock_once, clean_up, clean_up_for_ever, ignore, finish, give_up,
        escape_and_return, escape_and_crash, escape_and_stay, escape_and_ignore,
    )
}  # fmt: skip


@action("iso:plain", lease=1, max_attempts=2, backoff=0.05, cancel_grace=GRACE, isolation="process")
def plain(request: Work, ctx: ActionContext) -> Any:
    """Do it in the main thread of a process."""
    return HOW[request.how](request, ctx)


@action("iso:async", lease=1, max_attempts=2, backoff=0.05, cancel_grace=GRACE, isolation="process")
async def asynchronous(request: Work, ctx: ActionContext) -> Any:
    """Do it in the event loop of a process."""
    if request.how in WAITS:
        return await WAITS[request.how](request, ctx)
    return HOW[request.how](request, ctx)


def traced(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler as most decorators do."""

    @functools.wraps(handler)
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    return wrapper


@action("iso:traced", lease=1, max_attempts=2, backoff=0.05, cancel_grace=GRACE, isolation="process")
@traced
async def wrapped(request: Work, ctx: ActionContext) -> Any:
    """Do it in an event loop that a plain function asks for."""
    return await WAITS[request.how](request, ctx) if request.how in WAITS else HOW[request.how](request, ctx)


async def wait(request: Work, ctx: ActionContext) -> None:
    """Wait until cancelled, and then clean up."""
    try:
        await ctx.progress(1)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        mark(request, f"cleaned up, cancel requested: {ctx.cancel_requested}")


async def wait_stubbornly(request: Work, ctx: ActionContext) -> None:
    """Wait, and ignore cancellations."""
    await ctx.progress(1)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def cancel_oneself(request: Work, ctx: ActionContext) -> None:
    """Cancel the own task."""
    task = asyncio.current_task()
    if task is not None:
        task.cancel()


async def hold_the_loop(request: Work, ctx: ActionContext) -> str:
    """Block the event loop, and read `cancel_requested`."""
    await ctx.progress(1)
    while not ctx.cancel_requested:
        time.sleep(0.001)  # noqa: ASYNC251 - on purpose
    return "looked"


WAITS: Final = {one.__name__: one for one in (wait, wait_stubbornly, cancel_oneself, hold_the_loop)}
