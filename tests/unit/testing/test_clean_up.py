"""`clean_up=True`: whatever happens after a cancel, the handler's clean-up is done to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from opstream import ActionCanceledError, ActionContext, RetryAfter, action
from opstream.testing import EVERY_STEP, RunResult, run
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Signaled
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Status
from opstream_schemas.signals.signal_decision import SignalRefused, decide_signal

pytestmark = pytest.mark.unit

DAY = 86_400.0


class Order(msgspec.Struct):
    amount: int = 1


balance: dict[str, int] = {}
"""Payments by their key, as a bank has them that takes each once."""


def pay(key: str, amount: int) -> int:
    balance[key] = amount
    return amount


async def paid(key: str, amount: int) -> int:
    return pay(key, amount)


@pytest.fixture(autouse=True)
def _empty() -> None:
    balance.clear()


@action("order:place", clean_up=True, deadline=30 * DAY)
async def place(order: Order, ctx: ActionContext) -> str:
    try:
        await ctx.step("charge", paid, "charge", order.amount)
        await ctx.sleep(DAY, "cool-off")
        await ctx.step("ship", asyncio.sleep, 60)
    except asyncio.CancelledError:
        await ctx.step("refund", paid, "refund", -order.amount)
        await ctx.step("tell", asyncio.sleep, 1)
        raise
    return "shipped"


@action("order:place-plain", clean_up=True, deadline=30 * DAY)
def place_plain(order: Order, ctx: ActionContext) -> str:
    try:
        ctx.step("charge", pay, "charge", order.amount)
        ctx.sleep(DAY, "cool-off")
        ctx.step("ship", pay, "ship", 0)
        ctx.check_canceled()
    except ActionCanceledError:
        ctx.step("refund", pay, "refund", -order.amount)
        raise
    return "shipped"


def settled(result: RunResult[Any]) -> None:
    """Canceled is refunded, if it was charged; shipped is paid."""
    due = 0 if result.status is Status.CANCELED else 1
    assert sum(balance.values()) == due, f"{result.status} with {balance}"


@pytest.mark.parametrize("handler", [place, place_plain])
def test_each_cancel_with_each_death(handler: Any) -> None:
    """Wherever its client cancels, and wherever a runner dies then, the money is given back, or the goods came."""
    without = run(handler, cancel_at=EVERY_STEP, setup=balance.clear, check=settled)
    assert {one.status for one in without.cancels} == {Status.CANCELED, Status.SUCCEEDED}
    died = 0
    for one in without.cancels:
        canceled_at = str(one.canceled_at)
        moments = [str(moment) for moment in one.moments]
        # One moment comes twice: an event that the cancel is ahead of is decided again.
        for moment in set(moments[moments.index(canceled_at) :]) - {canceled_at}:
            balance.clear()
            settled(run(handler, cancel_at=canceled_at, crash_at=moment))
            died += 1
    assert died > 50


def test_a_wait_is_cut_short() -> None:
    """What sleeps for a day is canceled within a moment, by an attempt that begins for that alone."""
    found = run(place, cancel_at="after waiting 'cool-off' in attempt 1")
    assert (found.status, found.attempts, found.seconds < 60) == (Status.CANCELED, 2, True)
    assert list(found.names) == [
        *("requested", "started", "step-succeeded", "waiting", "cancel-requested"),
        *("started", "step-succeeded", "step-succeeded", "canceled"),
    ]
    assert sum(balance.values()) == 0


def test_a_retry_is_cut_short() -> None:
    """So is the pause before the next attempt."""

    @action("order:retry", clean_up=True, backoff=DAY, backoff_max=DAY, deadline=30 * DAY)
    async def retry(_order: Order, ctx: ActionContext) -> None:
        try:
            await ctx.step("charge", paid, "charge", 1)
            if ctx.attempt == 1:
                raise RetryAfter(3600)
            await ctx.step("ship", asyncio.sleep, 60)
        except asyncio.CancelledError:
            await ctx.step("refund", paid, "refund", -1)
            raise

    found = run(retry, cancel_at="after attempt-failed in attempt 1")
    assert (found.status, found.seconds < 60, sum(balance.values())) == (Status.CANCELED, True, 0)


def test_a_clean_up_that_fails_is_tried_again() -> None:
    """It has the attempts that the action has, with its pauses. After the last the operation has failed."""
    tries = 0

    @action("order:flaky", clean_up=True, max_attempts=3, deadline=30 * DAY)
    async def flaky(_order: Order, ctx: ActionContext) -> None:
        nonlocal tries
        try:
            await ctx.sleep(DAY)
        except asyncio.CancelledError:
            tries += 1
            if tries < needed:
                raise RuntimeError("the bank is closed") from None
            raise

    needed = 3
    assert run(flaky, cancel_at="after waiting 'sleep' in attempt 1").status is Status.CANCELED
    assert tries == 3
    tries, needed = 0, 9
    found = run(flaky, cancel_at="after waiting 'sleep' in attempt 1")
    assert (found.status, tries) == (Status.FAILED, 3)


def test_a_clean_up_may_wait() -> None:
    """A sleep in the clean-up is one like any other: the attempt ends, and the clean-up goes on behind it."""

    @action("order:slow", clean_up=True, deadline=30 * DAY)
    async def slow(_order: Order, ctx: ActionContext) -> None:
        try:
            await ctx.sleep(DAY, "cool-off")
        except asyncio.CancelledError:
            await ctx.sleep(2 * DAY, "bank-holiday")
            await ctx.step("refund", paid, "refund", 0)
            raise

    found = run(slow, cancel_at="after waiting 'cool-off' in attempt 1")
    assert (found.status, found.attempts) == (Status.CANCELED, 3)
    assert 2 * DAY <= found.seconds < 3 * DAY


def test_a_signal_after_the_cancel_is_too_late() -> None:
    """What waited for it does not any more, and nothing else will ever take it: its sender is told so."""

    @action("order:ask", clean_up=True, deadline=30 * DAY)
    async def ask(_order: Order, ctx: ActionContext) -> None:
        await ctx.wait_for("approval", bool)

    found = run(ask, cancel_at="after waiting 'approval' in attempt 1")
    assert found.status is Status.CANCELED
    for count in (4, 5):  # canceled, and while it cleans up
        state = fold(None, found.events[:count])
        assert state is not None
        with pytest.raises(SignalRefused) as refused:
            decide_signal(state.receiver, Signaled(signal="approval", payload=msgspec.Raw(b"true")), is_proven=False)
        assert refused.value.code == ErrorCode.SIGNAL_TOO_LATE


def test_without_it_nothing_is_called_again() -> None:
    """Then a cancel of what waits ends it at once."""

    @action("order:plainly", deadline=30 * DAY)
    async def plainly(_order: Order, ctx: ActionContext) -> None:
        await ctx.sleep(DAY)

    found = run(plainly, cancel_at="after waiting 'sleep' in attempt 1")
    assert list(found.names) == ["requested", "started", "waiting", "canceled"]


def test_parallel_steps() -> None:
    """Steps in a task group are cancelled with it, and the clean-up of the handler follows."""

    @action("order:parallel", clean_up=True, deadline=30 * DAY)
    async def parallel(_order: Order, ctx: ActionContext) -> None:
        try:
            await ctx.sleep(DAY)
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(ctx.step("ship", asyncio.sleep, 60, key=number))
        except asyncio.CancelledError:
            await ctx.step("refund", paid, "refund", 0)
            raise

    for moment in ("after waiting 'sleep' in attempt 1", "after started in attempt 2"):
        found = run(parallel, cancel_at=moment)
        assert (found.status, found.names[-2:]) == (Status.CANCELED, ("step-succeeded", "canceled"))
