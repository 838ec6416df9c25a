"""Actions for the part `priorities`: one that holds a slot for a while, with priorities and without, and one that
does nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.harness.actions import Ping, Pong
from opstream import ActionContext, action

HOLD: Final = 0.02
"""Seconds."""


@action("bench:queued", priority="normal")
async def queued(request: Ping, _context: ActionContext) -> Pong:
    """Hold a slot."""
    await asyncio.sleep(HOLD)
    return Pong(text=request.text)


@action("bench:in-order")
async def in_order(request: Ping, _context: ActionContext) -> Pong:
    """Hold a slot, without priorities."""
    await asyncio.sleep(HOLD)
    return Pong(text=request.text)


@action("bench:prompt", priority="normal")
async def prompt(request: Ping, _context: ActionContext) -> Pong:
    """Return at once."""
    return Pong(text=request.text)


@action("bench:plain")
async def plain(request: Ping, _context: ActionContext) -> Pong:
    """Return at once, without priorities."""
    return Pong(text=request.text)
