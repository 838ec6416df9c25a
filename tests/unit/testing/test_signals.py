"""`run(signals=...)`: what others send to an operation, through the door of the API."""

from __future__ import annotations

import msgspec
import pytest

from opstream import ActionContext, action
from opstream.testing import EVERY_STEP, RunRefused, Signal, run
from opstream_schemas.operation.state import Status

pytestmark = pytest.mark.unit


class Order(msgspec.Struct):
    amount: int = 1


class Approval(msgspec.Struct, forbid_unknown_fields=True):
    approved: bool


async def ship() -> str:
    return "shipped"


@action("order:approve", deadline=90 * 86_400)
async def approve(_order: Order, ctx: ActionContext) -> str:
    approval = await ctx.wait_for("approval", Approval, timeout=7 * 86_400)
    return await ctx.step("ship", ship) if approval.approved else "refused"


@action("order:approve-twice")
async def approve_twice(_order: Order, ctx: ActionContext) -> list[bool]:
    found = await ctx.wait_for("approval", Approval, approvers=2, not_requester=True)
    return [one.approved for one in found]


@pytest.mark.parametrize("signal", [{"approved": True}, Approval(approved=True), b'{"approved": true}'])
def test_a_signal_ends_the_wait(signal: object) -> None:
    """It is sent when the operation waits for it, and the next attempt has it."""
    found = run(approve, signals=[Signal("approval", signal, by="ann", after=3600)])
    assert (found.result, found.attempts, found.seconds) == ("shipped", 2, pytest.approx(3600, abs=1))
    assert found.names[2:4] == ("waiting", "signaled")


def test_one_that_comes_before() -> None:
    """It is kept until the operation waits for it."""
    found = run(approve, signals=[Signal("approval", {"approved": False}, is_early=True)])
    assert (found.result, found.seconds < 60) == ("refused", True)
    assert found.names.index("signaled") < found.names.index("waiting")


def test_without_one() -> None:
    """The wait takes its time, and no longer."""
    found = run(approve)
    assert (found.status, found.error and found.error.code) == (Status.FAILED, "WaitTimedOut")
    assert found.seconds == pytest.approx(7 * 86_400, abs=1)


def test_two_approvers() -> None:
    """The rules of the door apply: different callers, and not the one who requested."""
    both = [
        Signal("approval", {"approved": True}, by="ann"),
        Signal("approval", {"approved": False}, by="bob", after=60),
    ]
    assert run(approve_twice, caller="eve", signals=both).result == [True, False]
    with pytest.raises(RunRefused, match="would refuse the signal 'approval'"):
        run(approve_twice, caller="ann", signals=both)


def test_what_the_door_refuses() -> None:
    """A payload of another type, and a name that the operation never waits for, with what it waited for."""
    with pytest.raises(RunRefused, match="would refuse the signal 'approval'"):
        run(approve, signals=[Signal("approval", {"aproved": True})])
    with pytest.raises(RunRefused, match="did not wait for the signal 'aproval'; it waited for: 'approval'"):
        run(approve, signals=[Signal("aproval", {"approved": True})])


def test_deaths_around_a_signal() -> None:
    """Wherever the runner dies, the signal is neither lost nor taken twice."""
    signals = [Signal("approval", {"approved": True}, by="ann", after=60)]
    result = run(approve, signals=signals, crash_at=EVERY_STEP)
    assert {one.result for one in result.crashes} == {"shipped"}
    assert {one.names.count("signaled") for one in result.crashes} == {1}
