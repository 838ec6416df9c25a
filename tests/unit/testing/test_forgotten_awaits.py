"""A call of the context that an async handler has not awaited fails the operation: its work was not done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from opstream import ActionContext, Child, action
from opstream.testing import run
from opstream_schemas.errors import ErrorCode
from opstream_schemas.operation.state import Status

pytestmark = pytest.mark.unit

CALLS: Final[dict[str, tuple[Callable[[ActionContext], Any], str]]] = {
    "step": (lambda ctx: ctx.step("charge", str, "1"), "step 'charge'"),
    "sleep": (lambda ctx: ctx.sleep(5), "wait 'sleep'"),
    "wait_for": (lambda ctx: ctx.wait_for("approval", bool), "wait 'approval'"),
    "run": (lambda ctx: ctx.run("pages:print"), "child 'pages:print'"),
    "run_all": (lambda ctx: ctx.run_all([Child("pages:print")]), "children 'children'"),
    "attach": (lambda ctx: ctx.attach(__file__), f"file '{Path(__file__).name}'"),
}


class Order(msgspec.Struct):
    call: str = "step"


class Bank:
    def __init__(self) -> None:
        self.charged: list[int] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def charge(self, amount: int) -> int:
        self.charged.append(amount)
        return amount


bank = Bank()


@pytest.fixture(autouse=True)
def _empty() -> None:
    bank.charged.clear()


@action("forgets:await")
async def forgets(order: Order, ctx: ActionContext) -> None:
    make, _ = CALLS[order.call]
    make(ctx)


@action("forgets:returned")
async def returned(_order: Order, ctx: ActionContext) -> Any:
    return ctx.step("charge", bank.charge, 1)


@action("forgets:task")
async def left_task(_order: Order, ctx: ActionContext) -> None:
    bank.tasks.append(asyncio.create_task(ctx.step("charge", bank.charge, 1)))


@action("forgets:gathered")
async def gathered(_order: Order, ctx: ActionContext) -> list[int]:
    later = asyncio.create_task(ctx.step("c", bank.charge, 3))
    both = await asyncio.gather(ctx.step("a", bank.charge, 1), ctx.step("b", bank.charge, 2))
    return [*both, await later]


@action("forgets:given-up")
async def given_up(_order: Order, ctx: ActionContext) -> str:
    try:
        await asyncio.wait_for(ctx.step("charge", bank.charge, 1), timeout=0)
    except TimeoutError:
        ctx.step("other", bank.charge, 2).close()
    return "without"


@pytest.mark.parametrize("call", CALLS)
def test_each_call(call: str, caplog: pytest.LogCaptureFixture) -> None:
    """The operation fails in its first attempt, and the log says what to write, where."""
    with caplog.at_level(logging.ERROR):
        result = run(forgets, Order(call))
    assert (result.status, result.attempts) == (Status.FAILED, 1)
    assert result.operation.error is not None
    assert result.operation.error.code == ErrorCode.INVALID_STEP
    line = CALLS[call][0].__code__.co_firstlineno
    expected = f"{CALLS[call][1]} at {__file__}:{line} was never awaited: write `await ctx.{call}(...)`"
    assert expected in caplog.text


@pytest.mark.parametrize("lost", [returned, left_task])
def test_nothing_begins_after_the_attempt(lost: Any) -> None:
    """A step that is returned, or left in a task, fails the operation, and is not run behind its back."""
    assert run(lost).status is Status.FAILED
    assert bank.charged == []


@pytest.mark.parametrize(("kept", "result", "charged"), [(gathered, [1, 2, 3], [1, 2, 3]), (given_up, "without", [])])
def test_what_is_no_mistake(kept: Any, result: object, charged: list[int]) -> None:
    """Gathered calls and tasks are awaited; what was cancelled or closed before it began is not missed."""
    assert run(kept).result == result
    assert sorted(bank.charged) == charged
