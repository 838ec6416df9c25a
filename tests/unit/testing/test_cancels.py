"""`run(cancel_at=...)`: a client cancels at a moment, and the action cleans up or not."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from opstream import ActionContext, action
from opstream.testing import EVERY_STEP, FaultFound, RunRefused, RunResult, run
from opstream_schemas.operation.state import Status

pytestmark = pytest.mark.unit


class Order(msgspec.Struct):
    amount: int = 1


balance: list[int] = []


async def charge(amount: int) -> int:
    balance.append(amount)
    return amount


async def refund(amount: int) -> int:
    balance.append(-amount)
    return amount


async def ship() -> str:
    await asyncio.sleep(3600)
    return "shipped"


@pytest.fixture(autouse=True)
def _empty() -> None:
    balance.clear()


@action("order:careful")
async def careful(order: Order, ctx: ActionContext) -> str:
    try:
        await ctx.step("charge", charge, order.amount)
        return await ctx.step("ship", ship)
    except asyncio.CancelledError:
        if balance:
            await ctx.step("refund", refund, order.amount)
        raise


@action("order:careless")
async def careless(order: Order, ctx: ActionContext) -> str:
    await ctx.step("charge", charge, order.amount)
    return await ctx.step("ship", ship)


def refunded(result: RunResult[str]) -> None:
    if result.status is Status.CANCELED:
        assert sum(balance) == 0, f"canceled with {sum(balance)} in the bank"


def test_an_action_that_refunds() -> None:
    """Wherever its client cancels, it has either succeeded or given the money back."""
    result = run(careful, cancel_at=EVERY_STEP, setup=balance.clear, check=refunded)
    assert [one.canceled_at for one in result.cancels] == list(result.moments)
    assert {one.status for one in result.cancels} == {Status.CANCELED, Status.SUCCEEDED}
    assert any("refund" in {step.name for step in one.steps} for one in result.cancels)


def test_an_action_that_keeps_the_money() -> None:
    """The check finds it, and the message names the moments."""
    with pytest.raises(FaultFound) as found:
        run(careless, cancel_at=EVERY_STEP, setup=balance.clear, check=refunded)
    assert "order:careless is not safe if its client cancels at " in str(found.value)
    assert "- after step-succeeded 'charge' in attempt 1: the check fails: canceled with 1 in" in str(found.value)
    assert 'cancel_at="…"' in str(found.value)


def test_one_moment() -> None:
    """Before an attempt the operation is canceled at once; at its end the outcome stands."""
    early = run(careful, cancel_at="before started in attempt 1")
    assert (early.status, early.attempts, balance) == (Status.CANCELED, 0, [])
    late = run(careful, cancel_at="after succeeded in attempt 1")
    assert (late.status, late.result) == (Status.SUCCEEDED, "shipped")
    with pytest.raises(RunRefused, match="so nobody canceled"):
        run(careful, cancel_at="after lunch")


def test_a_cancel_between_attempts_and_in_waits() -> None:
    """An operation that waits is canceled at once."""

    @action("order:wait")
    async def wait(_order: Order, ctx: ActionContext) -> None:
        await ctx.sleep(3600)

    found: Any = run(wait, cancel_at="after waiting 'sleep' in attempt 1")
    assert (found.status, found.names[-1], found.seconds < 60) == (Status.CANCELED, "canceled", True)


def test_a_plain_handler() -> None:
    """It reads `cancel_requested`, as in production."""
    stopped = threading.Event()

    @action("order:plain")
    def plain(_order: Order, ctx: ActionContext) -> None:
        ctx.step("charge", lambda: 1)
        while not ctx.cancel_requested:
            stopped.wait(0.001)
        ctx.check_canceled()

    assert run(plain, cancel_at="after step-succeeded 'charge' in attempt 1").status is Status.CANCELED


def test_a_death_and_a_cancel() -> None:
    """Both may happen in one run: the next runner finds the cancel request, and ends the operation."""
    found = run(
        careful,
        cancel_at="before step-succeeded 'ship' in attempt 1",
        crash_at="before step-succeeded 'refund' in attempt 1",
    )
    assert found.status is Status.CANCELED
    assert ("cancel-requested" in found.names, found.names[-1], found.attempts) == (True, "canceled", 1)
