"""Three steps of opstream."""

from __future__ import annotations

import msgspec

from opstream import ActionContext, action


class Number(msgspec.Struct):
    """The input, and the result."""

    n: int


async def add(number: int) -> int:
    """Return the next number."""
    return number + 1


@action("peers:noop")
async def steps(request: Number, context: ActionContext) -> Number:
    """Return the input, after three steps."""
    one = await context.step("one", add, request.n)
    two = await context.step("two", add, one)
    return Number(await context.step("three", add, two) - 3)
