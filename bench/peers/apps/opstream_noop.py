"""The no-op of opstream."""

from __future__ import annotations

import msgspec

from opstream import ActionContext, action


class Number(msgspec.Struct):
    """The input, and the result."""

    n: int


@action("peers:noop")
async def noop(request: Number, _context: ActionContext) -> Number:
    """Return the input."""
    return request
