"""Actions that use all that the broker does for a runner: retries, locks of a group, rates, long attempts, children."""

from __future__ import annotations

import asyncio

import msgspec

from opstream import ActionContext, Child, ChildRefused, RetryAfter, action


class Work(msgspec.Struct):
    """What to do."""

    seconds: float = 0.0


@action("work:flaky", retry_after=1)
async def flaky(request: Work, ctx: ActionContext) -> int:
    """Fail once, and succeed in the second attempt, which a timer on the broker begins."""
    if ctx.attempt == 1:
        raise RetryAfter(1, "once")
    return ctx.attempt


@action("work:first", retry_after=1, exclusive="resource", exclusive_group="works")
async def first(request: Work, ctx: ActionContext) -> int:
    """Hold a lock that another action shares."""
    await asyncio.sleep(request.seconds)
    return ctx.attempt


@action("work:second", retry_after=1, exclusive="resource", exclusive_group="works", deadline=600)
async def second(request: Work, ctx: ActionContext) -> int:
    """Wait for the same lock."""
    return ctx.attempt


@action("work:rated", retry_after=1, rate="2/s")
async def rated(request: Work, ctx: ActionContext) -> int:
    """Begin at most twice a second."""
    return ctx.attempt


@action("work:whole", retry_after=1)
async def whole(request: Work, ctx: ActionContext) -> int:
    """Have a child work, and leave another one open, which ends with this operation."""
    attempt = await ctx.run("work:second", Work(), resource_id="9", returns=int)
    try:
        await ctx.run_all([Child("work:first", Work(600), "10"), Child("work:unknown", Work())])
    except ChildRefused:
        return int(attempt)
    raise ValueError("there is no such action")
