"""Actions that wait for signals, in the runner and in processes of their own: `wait:NAME` and `wait:NAME-apart`.

Each attempt writes a line into the file that the input names, when it begins and when its handler is unwound.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from opstream_runner import ActionContext, WaitTimedOut, action


class Plan(msgspec.Struct):
    """What to do."""

    file: str
    """Where attempts are noted."""
    names: tuple[str, ...] = ("approval",)
    """The signals that are waited for, one after another."""
    timeout: float | None = None
    approvers: int = 1
    not_requester: bool = False
    catches: bool = False
    """Catch the time-out, and return `late`."""
    fails: bool = False
    """Fail the first attempt that has all its signals."""
    twice: bool = False
    """Wait for the last name again."""
    group: bool = False
    """Wait in a task group (async only)."""


class Approval(msgspec.Struct):
    """A signal."""

    approved: bool


def note(plan: Plan, text: str) -> None:
    """Write a line."""
    with Path(plan.file).open("a") as lines:
        lines.write(f"{text}\n")


def lines(file: Path) -> list[str]:
    """The lines so far."""
    return file.read_text().split("\n")[:-1] if file.exists() else []


def end(plan: Plan, ctx: ActionContext, found: list[Any]) -> Any:
    """What a handler does with its signals."""
    note(plan, f"has {ctx.attempt}")
    if plan.fails and "failed" not in lines(Path(plan.file)):
        note(plan, "failed")
        raise OSError("the first attempt with its signals")
    return {"attempt": ctx.attempt, "found": found}


def asked(plan: Plan) -> dict[str, Any]:
    """The options of a wait."""
    return {"timeout": plan.timeout, "approvers": plan.approvers, "not_requester": plan.not_requester}


async def handle(plan: Plan, ctx: ActionContext) -> Any:
    """Wait for each name, in an async handler."""
    note(plan, f"begins {ctx.attempt}")
    found: list[Any] = []
    try:
        for name in [*plan.names, *plan.names[-1:] * plan.twice]:
            if plan.group:
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(ctx.wait_for(name, Approval, **asked(plan)))
                    group.create_task(asyncio.sleep(3600 if name not in found else 0))
                found.append(waiting.result())
            else:
                found.append(await ctx.wait_for(name, Approval, **asked(plan)))
    except WaitTimedOut:
        if not plan.catches:
            raise
        found.append("late")
    finally:
        note(plan, f"leaves {ctx.attempt}")
    return end(plan, ctx, found)


def handle_plain(plan: Plan, ctx: ActionContext) -> Any:
    """The same in a plain one."""
    note(plan, f"begins {ctx.attempt}")
    found: list[Any] = []
    try:
        for name in [*plan.names, *plan.names[-1:] * plan.twice]:
            found.append(ctx.wait_for(name, Approval, **asked(plan)))  # noqa: PERF401 - a time-out keeps the others
    except WaitTimedOut:
        if not plan.catches:
            raise
        found.append("late")
    finally:
        note(plan, f"leaves {ctx.attempt}")
    return end(plan, ctx, found)


in_loop = action("wait:async", backoff=0.05, lease=1.0)(handle)
in_thread = action("wait:plain", backoff=0.05, lease=1.0)(handle_plain)
in_loop_apart = action("wait:async-apart", isolation="process", backoff=0.05)(handle)
in_thread_apart = action("wait:plain-apart", isolation="process", backoff=0.05)(handle_plain)
ACTIONS = (in_loop, in_thread, in_loop_apart, in_thread_apart)
