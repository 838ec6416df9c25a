"""Actions that begin children, and the children."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from opstream_runner import ActionContext, ActionError, Child, ChildFailed, action


class Page(msgspec.Struct):
    """The input of a child."""

    number: int
    fails: bool = False
    seconds: float = 0.0


class Printed(msgspec.Struct):
    """The result of a child."""

    number: int


class Book(msgspec.Struct):
    """The input of a parent."""

    pages: int = 1
    max_parallel: int = 0
    fail: str = "first"
    failing: int = -1
    seconds: float = 0.0
    action: str = "page:print"


calls: list[tuple[str, int]] = []
"""Operation and attempt of each call of a parent, in order."""
failed: set[str] = set()
"""Operations of which an attempt has failed."""
running: list[int] = [0, 0]
"""Children that run now, and the most so far."""


@action("page:print", lease=3)
async def print_page(page: Page, ctx: ActionContext) -> Printed:
    """A child."""
    running[0] += 1
    running[1] = max(running)
    try:
        await asyncio.sleep(page.seconds)
    finally:
        running[0] -= 1
    if page.fails:
        raise ActionError("OutOfPaper", f"page {page.number} has no paper")
    return Printed(page.number)


@action("page:bind")
async def bind(book: Book, ctx: ActionContext) -> int:
    """A parent with one child."""
    calls.append((ctx.operation_id, ctx.attempt))
    page = Page(book.pages, fails=book.failing >= 0, seconds=book.seconds)
    printed = await ctx.run(book.action, page, resource_id="p-1", returns=Printed)
    return int(printed.number)


@action("page:bind-plain")
def bind_plain(book: Book, ctx: ActionContext) -> int:
    """The same, in a thread."""
    return int(ctx.run("page:print", Page(book.pages, seconds=book.seconds), returns=Printed).number)


@action("page:bind-apart", isolation="process")
async def bind_apart(book: Book, ctx: ActionContext) -> list[int]:
    """A parent of several, in a process of its own."""
    found = await ctx.run_all(_pages(book), max_parallel=book.max_parallel, returns=Printed)
    return [printed.number for printed in found]


@action("page:bind-all", max_attempts=3)
async def bind_all(book: Book, ctx: ActionContext) -> list[int]:
    """A parent of several."""
    calls.append((ctx.operation_id, ctx.attempt))
    found = await ctx.run_all(_pages(book), max_parallel=book.max_parallel, fail=book.fail, returns=Printed)
    return [printed.number for printed in found]


@action("page:forgive")
async def forgive(book: Book, ctx: ActionContext) -> Any:
    """A parent that goes on without its child."""
    try:
        await ctx.run("page:print", Page(1, fails=True))
    except ChildFailed as error:
        return [error.operation_id, error.state, error.error and error.error.code]
    return None


@action("page:endless")
async def endless(book: Book, ctx: ActionContext) -> Any:
    """A parent that begins itself."""
    return await ctx.run("page:endless", book)


@action("page:bind-mixed")
async def bind_mixed(book: Book, ctx: ActionContext) -> Any:
    """A parent of a child that fails between two that go on."""
    pages = [Page(0, seconds=600), Page(1, fails=True, seconds=0.2), Page(2, seconds=600)]
    return await ctx.run_all([Child("page:print", page) for page in pages])


@action("page:grandparent")
async def grandparent(book: Book, ctx: ActionContext) -> Any:
    """A parent of a parent."""
    return await ctx.run("page:bind-all", book)


@action("page:bind-hurried", deadline=20)
async def bind_hurried(book: Book, ctx: ActionContext) -> Any:
    """A parent with a deadline."""
    return await ctx.run("page:print", Page(1))


@action("page:bind-twice", max_attempts=3, backoff=0.01)
async def bind_twice(book: Book, ctx: ActionContext) -> list[int]:
    """A parent whose attempts fail once, after it has its results."""
    found = await ctx.run_all(_pages(book), returns=Printed)
    if ctx.operation_id not in failed:
        failed.add(ctx.operation_id)
        raise ValueError("once")
    return [printed.number for printed in found]


@action("page:bind-other", max_attempts=3, backoff=0.01)
async def bind_other(book: Book, ctx: ActionContext) -> Any:
    """A parent that asks for another child in each attempt."""
    return await ctx.run("page:print", Page(ctx.attempt))


class Text(msgspec.Struct):
    """The input of a child, or of its parent, with a document of this size."""

    size: int
    text: str = ""


@action("page:copy")
async def copy(given: Text, ctx: ActionContext) -> Text:
    """A child that returns its input twice."""
    return Text(given.size, given.text * 2)


@action("page:copy-all")
async def copy_all(given: Text, ctx: ActionContext) -> list[int]:
    """A parent with large inputs and results."""
    return [len(one.text) for one in await ctx.run_all(_copies(given), returns=Text)]


@action("page:copy-apart", isolation="process")
def copy_apart(given: Text, ctx: ActionContext) -> list[int]:
    """The same in a process of its own."""
    return [len(one.text) for one in ctx.run_all(_copies(given), returns=Text)]


@action("page:print-soon", priority="low")
async def print_soon(page: Page, ctx: ActionContext) -> Printed:
    """A child with a priority."""
    return Printed(page.number)


@action("page:bind-soon", priority="normal")
async def bind_soon(book: Book, ctx: ActionContext) -> Any:
    """A parent with a priority, of which one child has one, too."""
    await ctx.run("page:print-soon", Page(1))
    return await ctx.run("page:print", Page(2))


def _pages(book: Book) -> list[Child]:
    return [
        Child("page:print", Page(number, fails=number == book.failing, seconds=book.seconds))
        for number in range(book.pages)
    ]


def _copies(given: Text) -> list[Child]:
    return [Child("page:copy", Text(number, "x" * given.size)) for number in range(3)]
