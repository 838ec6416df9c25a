"""Actions for tests of failing services. Runners import it from their working directory, as a user's module.

Each call leaves a mark in a file; some wait for a gate, which is a file that the test makes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from opstream import ActionContext, action

MARKS: Final = Path("marks")
GATES: Final = Path("gates")
HALF: Final = 50
"""Percent at which `flow` waits for its gate."""

_POLL: Final = 0.02


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """The input."""

    number: int
    pause: float = 0.0
    """Seconds between two steps of a flow."""


class Done(msgspec.Struct):
    """The result, with the attempt's number."""

    number: int
    attempt: int


@action("kill:mark")
async def mark(request: Work, ctx: ActionContext) -> Done:
    """Leave a mark."""
    return _begin(request, ctx)


@action("kill:quick", lease=1.0, max_attempts=50)
async def quick(request: Work, ctx: ActionContext) -> Done:
    """Leave a mark; a short lease makes the next attempt follow soon after an outage."""
    return _begin(request, ctx)


@action("kill:gated")
async def gated(request: Work, ctx: ActionContext) -> Done:
    """Wait for the gate."""
    done = _begin(request, ctx)
    await _gate(ctx)
    return done


@action("kill:flow")
async def flow(request: Work, ctx: ActionContext) -> Done:
    """Report each percent, and wait for the gate halfway."""
    done = _begin(request, ctx)
    for percent in range(1, 100):
        if percent == HALF:
            await _gate(ctx)
        await ctx.progress(percent, f"attempt {ctx.attempt}")
        await asyncio.sleep(request.pause)
    return done


def _begin(request: Work, ctx: ActionContext) -> Done:
    with MARKS.open("a", encoding="utf-8") as marks:
        marks.write(f"{request.number} {ctx.operation_id}\n")
    return Done(request.number, ctx.attempt)


async def _gate(ctx: ActionContext) -> None:
    while not (GATES / ctx.operation_id).exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(_POLL)
