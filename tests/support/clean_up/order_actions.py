"""Actions that put right what they did, in the runner and in own processes: `order:NAME` and `order:NAME-apart`.

Each call of a step's function writes a line into the file that the input names.
"""

from __future__ import annotations

import asyncio
import os
import signal

import msgspec

from opstream_runner import ActionCanceledError, ActionContext, action
from tests.support.runner.step_actions import note

_HOUR = 3600.0


class Order(msgspec.Struct):
    """What to do."""

    file: str
    """Where the calls of functions are noted."""
    wait: str = "sleep"
    """`sleep` or `signal`."""
    die: str = ""
    """`tell`: the process dies in the second step of the first clean-up."""


class Approval(msgspec.Struct):
    """What it waits for."""

    approved: bool


def tell(file: str, attempt: int, die: str) -> None:
    """The second step of the clean-up, if there is one."""
    note(file, "tell")
    if die and attempt == 2:
        os.kill(os.getpid(), signal.SIGKILL)


async def _async(order: Order, ctx: ActionContext) -> None:
    try:
        await ctx.step("charge", note, order.file, "charge")
        if order.wait == "sleep":
            await ctx.sleep(_HOUR)
        else:
            await ctx.wait_for("approval", Approval)
    except asyncio.CancelledError:
        await ctx.step("refund", note, order.file, "refund")
        if order.die:
            await ctx.step("tell", tell, order.file, ctx.attempt, order.die)
        raise


def _plain(order: Order, ctx: ActionContext) -> None:
    try:
        ctx.step("charge", note, order.file, "charge")
        if order.wait == "sleep":
            ctx.sleep(_HOUR)
        else:
            ctx.wait_for("approval", Approval)
    except ActionCanceledError:
        ctx.step("refund", note, order.file, "refund")
        if order.die:
            ctx.step("tell", tell, order.file, ctx.attempt, order.die)
        raise


on_loop = action("order:async", clean_up=True, backoff=0.1)(_async)
in_thread = action("order:plain", clean_up=True, backoff=0.1)(_plain)
apart = action("order:async-apart", clean_up=True, backoff=0.1, isolation="process")(_async)
plain_apart = action("order:plain-apart", clean_up=True, backoff=0.1, isolation="process")(_plain)
