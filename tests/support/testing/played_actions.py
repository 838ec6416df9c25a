"""Actions that do what their input says, attempt by attempt: `played:async` and `played:plain`.

The same action is played by `opstream.testing` and by a runner on a real broker, and leaves the same events.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from opstream_runner import ActionContext, ActionError, RetryAfter, action


class Act(msgspec.Struct):
    """One thing that a handler does."""

    what: str
    """`step`, `once` (a step that runs at most once), `failing` (a step that fails), `progress`, `sleep`; or the end of
    the attempt: `raise`, `retry`, `fail`."""
    name: str = "a"
    number: int = 0


class Program(msgspec.Struct):
    """What the attempts do, each its own list; further ones do what the last does."""

    attempts: list[list[Act]]


class Made(msgspec.Struct):
    """The result of a step."""

    name: str
    number: int


def make(name: str, number: int) -> Made:
    """The function of a step."""
    return Made(name, number)


async def make_later(name: str, number: int) -> Made:
    """The same as a coroutine."""
    await asyncio.sleep(0)
    return make(name, number)


def fail(name: str, number: int) -> Made:
    """A function that fails."""
    raise OSError(f"{name} {number}")


def end(act: Act) -> None:
    """End the attempt, if the act says so."""
    match act.what:
        case "raise":
            raise ValueError(act.name)
        case "retry":
            raise RetryAfter(0.01, act.name)
        case "fail":
            raise ActionError("OnPurpose", act.name, target="attempts")


def acts_of(program: Program, ctx: ActionContext) -> list[Act]:
    """What this attempt does."""
    return program.attempts[min(ctx.attempt, len(program.attempts)) - 1]


@action("played:async", lease=1, max_attempts=4, backoff=0.01, backoff_max=0.02)
async def played_async(program: Program, ctx: ActionContext) -> list[Any]:
    """Play a program in the loop."""
    made: list[Any] = []
    for line, act in enumerate(acts_of(program, ctx)):
        match act.what:
            case "step":
                function = make if act.number % 2 else make_later
                made.append(await ctx.step(act.name, function, act.name, act.number, key=line))
            case "once":
                made.append(await ctx.step(act.name, make_later, act.name, act.number, key=line, at_most_once=True))
            case "failing":
                try:
                    await ctx.step(act.name, fail, act.name, act.number, key=line)
                except OSError as error:
                    made.append(str(error))
            case "progress":
                await ctx.progress(min(100, line * 10), act.name)
            case "sleep":
                await ctx.sleep(0.02, act.name, key=line)
            case _:
                end(act)
    return made


@action("played:plain", lease=1, max_attempts=4, backoff=0.01, backoff_max=0.02)
def played_plain(program: Program, ctx: ActionContext) -> list[Any]:
    """Play a program in a thread."""
    made: list[Any] = []
    for line, act in enumerate(acts_of(program, ctx)):
        match act.what:
            case "step" | "once":
                once = act.what == "once"
                made.append(ctx.step(act.name, make, act.name, act.number, key=line, at_most_once=once))
            case "failing":
                try:
                    ctx.step(act.name, fail, act.name, act.number, key=line)
                except OSError as error:
                    made.append(str(error))
            case "sleep":
                ctx.sleep(0.02, act.name, key=line)
            case _:
                end(act)
    return made
