"""`run` of an action that begins children: those of its module, or what the test gives for them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from opstream import ActionCanceledError, ActionContext, ActionError, Child, ChildFailed, action
from opstream.testing import EVERY_STEP, RunRefused, RunResult, run

pytestmark = pytest.mark.unit

HOUR = 3600


class Page(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    hours: float = 0.0
    fails: bool = False


class Printed(msgspec.Struct):
    number: int


class Book(msgspec.Struct, forbid_unknown_fields=True):
    pages: int = 3
    max_parallel: int = 0
    fail: str = "first"
    hours: float = 0.0
    failing: int = -1


printed: list[int] = []
"""What has left the printer."""


@pytest.fixture(autouse=True)
def _no_paper() -> None:
    printed.clear()


@action("page:print")
async def print_page(page: Page, ctx: ActionContext) -> Printed:
    await asyncio.sleep(page.hours * HOUR)
    if page.fails:
        raise ActionError("OutOfPaper", f"page {page.number}")
    printed.append(page.number)
    return Printed(page.number)


@action("book:print", deadline=100 * HOUR)
async def print_book(book: Book, ctx: ActionContext) -> list[int]:
    pages = [Child("page:print", Page(n, book.hours * (n + 1), n == book.failing), f"p-{n}") for n in range(book.pages)]
    found = await ctx.run_all(pages, max_parallel=book.max_parallel, fail=book.fail, returns=Printed)
    return [page.number for page in found]


@action("book:print-plain")
def print_plain(book: Book, ctx: ActionContext) -> int:
    return int(ctx.run("page:print", Page(book.pages), returns=Printed).number)


@action("shelf:print", deadline=100 * HOUR)
async def print_shelf(book: Book, ctx: ActionContext) -> Any:
    return [await ctx.run("book:print", book, key=number) for number in range(2)]


@action("book:bind")
async def bind(_book: Book, ctx: ActionContext) -> str:
    try:
        return str(await ctx.run("cover:make", {"title": "Moby Dick"}, resource_id="7"))
    except ChildFailed as error:
        return f"{error.state}: {error.error and error.error.code}"


def note(what: int) -> None:
    printed.append(what)


@action("book:order", clean_up=True, deadline=100 * HOUR)
async def order(book: Book, ctx: ActionContext) -> str:
    try:
        await ctx.step("charge", note, 1_000)
        await ctx.run_all([Child("page:print", Page(n, 0.001)) for n in range(book.pages)])
        await ctx.step("ship", note, 3_000)
    except asyncio.CancelledError:
        await ctx.step("refund", note, -1_000)
        await ctx.run("page:print", Page(9_000), name="notice")
        raise
    return "shipped"


@action("book:order-plain", clean_up=True, deadline=100 * HOUR)
def order_plain(book: Book, ctx: ActionContext) -> str:
    try:
        ctx.step("charge", note, 1_000)
        ctx.run("page:print", Page(0, 0.001))
        ctx.step("ship", note, 3_000)
        ctx.check_canceled()
    except ActionCanceledError:
        ctx.step("refund", note, -1_000)
        ctx.run("page:print", Page(9_000), name="notice")
        raise
    return "shipped"


def test_one_child() -> None:
    """The parent waits for it, and has its result; what it has asked for is shown."""
    result = run(print_plain, {"pages": 7})
    assert (result.status, result.result, printed) == ("Succeeded", 7, [7])
    assert result.names == ("requested", "started", "step-started", "waiting", "started", "succeeded")
    (child,) = result.children
    assert (child.action, child.input["number"], child.name, child.index) == ("page:print", 7, "page:print", None)
    assert child.status == "Succeeded"


@pytest.mark.parametrize("max_parallel", [0, 1, 2])
def test_several_at_once(max_parallel: int) -> None:
    """They take as long as the slowest of those that run at once, by the virtual clock."""
    result = run(print_book, Book(3, max_parallel, hours=1))
    assert result.result == [0, 1, 2]
    assert [child.resource_id for child in result.children] == ["p-0", "p-1", "p-2"]
    hours = {0: 3, 1: 1 + 2 + 3, 2: 4}[max_parallel]
    assert hours * HOUR <= result.seconds < (hours + 0.1) * HOUR


def test_children_of_children() -> None:
    """Each runs its own, one after the other."""
    result = run(print_shelf, Book(2, hours=1))
    assert result.result == [[0, 1], [0, 1]]
    assert [child.key for child in result.children] == ["0", "1"]
    assert result.seconds >= 4 * HOUR


@pytest.mark.parametrize(("fail", "hours"), [("first", 1), ("all", 3)])
def test_one_that_fails(fail: str, hours: int) -> None:
    """The parent fails at once, or when all have ended."""
    result = run(print_book, Book(3, fail=fail, hours=1, failing=0))
    assert result.status == "Failed"
    assert result.error is not None
    assert (result.error.code, result.error.target) == ("ChildFailed", result.children[0].operation_id)
    assert "OutOfPaper" in result.error.message
    assert hours * HOUR <= result.seconds < (hours + 0.1) * HOUR


def test_what_the_test_gives() -> None:
    """A result, a function of the input, an exception, another action."""

    @action("cover:make")
    async def make(_cover: Book, _ctx: ActionContext) -> str:
        return "leather"

    def titled(cover: dict[str, Any]) -> str:
        return f"cover of {cover['title']}"

    given: list[tuple[object, str]] = [
        ("paper", "paper"),
        (titled, "cover of Moby Dick"),
        (ActionError("NoLeather", "none left"), "failed: NoLeather"),
    ]
    for value, expected in given:
        assert run(bind, {}, children={"cover:make": value}).result == expected
    refused = run(bind, {}, children={"cover:make": make})
    assert refused.error is not None
    assert refused.error.code == "ChildRefused"  # as the API would: a book has no title
    assert "title" in refused.error.message


def test_what_is_not_known() -> None:
    """An action that neither the module nor the test has ends the run, and so does a name that is none."""
    with pytest.raises(RunRefused, match=r"cover:make.*children="):
        run(bind, {})
    with pytest.raises(RunRefused, match="resource:action"):
        run(bind, {}, children={"cover": "paper"})


def test_a_runner_dies_at_every_step() -> None:
    """Each child runs once, whenever the runner of its parent dies."""

    def once(result: RunResult[Any]) -> None:
        assert sorted(printed) == [0, 1, 2]
        assert len(result.children) == 3

    result = run(print_book, Book(3, 2, hours=0.001), crash_at=EVERY_STEP, setup=printed.clear, check=once)
    assert len(result.crashes) >= 10


@pytest.mark.parametrize("handler", [order, order_plain])
def test_a_clean_up(handler: Any) -> None:
    """Wherever the client cancels: what is canceled is refunded if it was charged, and the child of the clean-up has
    run once; also if a runner dies then, anywhere."""

    def settled(result: RunResult[Any]) -> None:
        if result.status == "Canceled":
            assert -1_000 in printed or 1_000 not in printed
            assert printed.count(9_000) == (-1_000 in printed)
        else:
            assert 3_000 in printed

    whole = run(handler, Book(2), cancel_at=EVERY_STEP, setup=printed.clear, check=settled)
    assert {one.status for one in whole.cancels} == {"Canceled", "Succeeded"}
    waiting = next(one for one in whole.cancels if str(one.canceled_at).startswith("after waiting"))
    assert waiting.status == "Canceled"
    later = waiting.moments[waiting.moments.index(waiting.canceled_at) + 1 :]
    assert len(later) > 10
    for moment in later:
        found = run(
            handler, Book(2), cancel_at=waiting.canceled_at, crash_at=moment, setup=printed.clear, check=settled
        )
        assert found.status == "Canceled"
