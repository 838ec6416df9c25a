"""Actions for tests of runner processes. Each misbehaves in its first attempts and returns the number of the attempt
that was let through. They print a line when they start.

Use them with `--actions tests.support.runner.stubborn_actions`.
"""

from __future__ import annotations

import asyncio
import os
import time

import msgspec

from opstream import ActionContext, action


class Work(msgspec.Struct):
    """The action's input."""

    bad: int = 1
    """How many attempts do not end well."""


def begin(request: Work, context: ActionContext) -> bool:
    """Print that an attempt starts. Return True if it is to misbehave."""
    print(f"{context.operation_id} begins attempt {context.attempt}", flush=True)
    return context.attempt <= request.bad


@action("work:wait", lease=2)
async def wait(request: Work, ctx: ActionContext) -> int:
    """Wait until cancelled."""
    if begin(request, ctx):
        await asyncio.Event().wait()
    return ctx.attempt


@action("work:wait-long", lease=60)
async def wait_long(request: Work, ctx: ActionContext) -> int:
    """Wait until cancelled, with a lease whose heartbeats are too rare for a test."""
    if begin(request, ctx):
        await asyncio.Event().wait()
    return ctx.attempt


@action("work:nap", lease=2)
async def nap(request: Work, ctx: ActionContext) -> int:
    """Return after a while, also if the lease is lost."""
    if begin(request, ctx):
        await asyncio.sleep(1)
    return ctx.attempt


@action("work:block")
def block(request: Work, ctx: ActionContext) -> int:
    """Block a thread and ignore the stop."""
    if begin(request, ctx):
        time.sleep(60)
    return ctx.attempt


@action("work:delegate")
async def delegate(request: Work, ctx: ActionContext) -> int:
    """Block a thread of the default executor, which the interpreter would wait for."""
    if begin(request, ctx):
        await asyncio.to_thread(time.sleep, 60)
    return ctx.attempt


@action("work:ignore")
async def ignore(request: Work, ctx: ActionContext) -> int:
    """Ignore being cancelled."""
    while begin(request, ctx):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue
    return ctx.attempt


@action("work:die", lease=1, max_attempts=2)
async def die(request: Work, ctx: ActionContext) -> None:
    """End the process."""
    if begin(request, ctx):
        os._exit(3)
