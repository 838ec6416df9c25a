"""An operation of many children, and its children, which do nothing."""

from __future__ import annotations

import msgspec

from opstream import ActionContext, Child, action


class Pages(msgspec.Struct, forbid_unknown_fields=True):
    """How many children, and how many of them at once; 0 for any number."""

    count: int
    max_parallel: int = 0


class Page(msgspec.Struct, forbid_unknown_fields=True):
    """The input of a child."""

    number: int


class Printed(msgspec.Struct):
    """The result of a child."""

    number: int


@action("bench:page")
async def page(request: Page, _context: ActionContext) -> Printed:
    """Return the page's number."""
    return Printed(request.number)


@action("bench:book")
async def book(request: Pages, ctx: ActionContext) -> int:
    """Have each page printed; return how many results are those of their places."""
    pages = [Child("bench:page", Page(number)) for number in range(request.count)]
    printed = await ctx.run_all(pages, max_parallel=request.max_parallel, returns=Printed)
    return sum(one.number == number for number, one in enumerate(printed))
