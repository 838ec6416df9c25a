"""The action that the benchmark runs. It does nothing, so the figures are opstream's."""

from __future__ import annotations

import msgspec

from opstream import ActionContext, action


class Ping(msgspec.Struct, forbid_unknown_fields=True):
    """A small input."""

    text: str


class Pong(msgspec.Struct):
    """The result."""

    text: str


@action("bench:noop")
async def noop(request: Ping, _context: ActionContext) -> Pong:
    """Return the input's text."""
    return Pong(text=request.text)
