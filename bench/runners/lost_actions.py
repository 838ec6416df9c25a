"""Actions for the part `recovery`: their first attempts never end, so a killed runner always loses them."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.harness.actions import Ping, Pong
from opstream import ActionContext, action

LEASES: Final = (2.0, 5.0)
"""Seconds, of the actions `lease-2` and `lease-5`."""


@action("bench:lease-2", lease=LEASES[0])
async def short(request: Ping, context: ActionContext) -> Pong:
    """Hang in the first attempt, with a short lease."""
    return await _hang_once(request, context)


@action("bench:lease-5", lease=LEASES[1])
async def longer(request: Ping, context: ActionContext) -> Pong:
    """Hang in the first attempt, with a longer lease."""
    return await _hang_once(request, context)


async def _hang_once(request: Ping, context: ActionContext) -> Pong:
    if context.attempt == 1:
        await asyncio.Event().wait()
    return Pong(text=request.text)
