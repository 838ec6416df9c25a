"""The action that the benchmark runs: it does nothing, so that what is measured is opstream."""

from __future__ import annotations

import msgspec

from opstream import ActionContext, action


class Ping(msgspec.Struct, forbid_unknown_fields=True):
    """Input, about as small as real ones get."""

    text: str


class Pong(msgspec.Struct):
    """Result."""

    text: str


@action("bench:noop")
async def noop(request: Ping, _context: ActionContext) -> Pong:
    """Answer what was asked."""
    return Pong(text=request.text)
