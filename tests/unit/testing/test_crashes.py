"""`run(crash_at=...)`: a runner that dies at a moment is frozen there, and another one goes on."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import msgspec
import pytest

from opstream import ActionContext, StepInterrupted, action
from opstream.testing import EVERY_STEP, CrashMoment, FaultFound, RunRefused, run
from opstream_schemas.errors import ErrorCode
from opstream_schemas.operation.state import Status

pytestmark = pytest.mark.unit


class Order(msgspec.Struct):
    amount: int = 1


class Bank:
    """What is outside of the action, and stays as it is when a runner dies."""

    def __init__(self) -> None:
        self.charges: list[str] = []
        self.keys: dict[str, str] = {}

    def reset(self) -> None:
        self.charges.clear()
        self.keys.clear()

    async def charge(self, key: str) -> str:
        self.charges.append(key)
        return f"charge-{key}"

    async def charge_once(self, key: str) -> str:
        if key not in self.keys:
            self.keys[key] = await self.charge(key)
        return self.keys[key]


bank = Bank()


@pytest.fixture(autouse=True)
def _empty() -> None:
    bank.reset()


@action("order:pay")
async def pay(_order: Order, ctx: ActionContext) -> str:
    return await ctx.step("charge", bank.charge, ctx.operation_id)


@action("order:pay-plain")
def pay_plain(_order: Order, ctx: ActionContext) -> str:
    def charge(key: str) -> str:
        bank.charges.append(key)
        return f"charge-{key}"

    charged = ctx.step("charge", charge, ctx.operation_id)
    assert isinstance(charged, str)
    return charged


@action("order:pay-by-key")
async def pay_by_key(_order: Order, ctx: ActionContext) -> str:
    return await ctx.step("charge", bank.charge_once, ctx.operation_id)


@action("order:pay-once")
async def pay_once(_order: Order, ctx: ActionContext) -> str:
    try:
        return await ctx.step("charge", bank.charge, ctx.operation_id, at_most_once=True)
    except StepInterrupted:
        if not bank.charges:
            return await ctx.step("charge again", bank.charge, ctx.operation_id)
        return f"charge-{bank.charges[0]}"


def charged_once(_result: object) -> None:
    assert bank.charges == ["op-1"], f"charged {len(bank.charges)} times"


@pytest.mark.parametrize("kind", [pay, pay_plain], ids=["async", "plain"])
def test_a_charge_that_is_made_twice_is_found(kind: Any) -> None:
    """A runner that dies between the charge and its record charges twice: only the check can tell, and says where."""
    with pytest.raises(FaultFound) as found:
        run(kind, crash_at="every step", setup=bank.reset, check=charged_once)
    assert "before step-succeeded 'charge' in attempt 1: the check fails: charged 2 times" in str(found.value)
    assert "at 1 of 6 moments" in str(found.value)
    assert isinstance(found.value, AssertionError)
    assert isinstance(found.value.__cause__, AssertionError)


@pytest.mark.parametrize("kind", [pay_by_key, pay_once], ids=["key", "at most once"])
def test_a_charge_that_is_made_once(kind: Any) -> None:
    """A key of the bank's own mends it, and so does a step that runs at most once and looks what became of it."""
    result = run(kind, crash_at=EVERY_STEP, setup=bank.reset, check=charged_once)
    assert len(result.crashes) == len(result.moments) >= 6
    assert {one.status for one in result.crashes} == {Status.SUCCEEDED}
    assert [one.crashed_at for one in result.crashes] == list(result.moments)


def test_one_moment() -> None:
    """A moment is named by text, or by what an earlier run has listed; the next runner begins after the lease."""
    alone = run(pay, crash_at="before step-succeeded 'charge' in attempt 1")
    assert (alone.result, alone.attempts, len(bank.charges)) == ("charge-op-1", 2, 2)
    assert alone.names == ("requested", "started", "started", "step-succeeded", "succeeded")
    assert alone.seconds == pay.spec.policy.lease
    same = run(pay, crash_at=alone.moments[2])
    assert same.crashed_at == CrashMoment(when="before", event="step-succeeded", name="charge", attempt=1)


def test_a_moment_that_does_not_come() -> None:
    """The message lists those that the run came to."""
    with pytest.raises(RunRefused, match=r"did not come to crash_at='after lunch', .* before started in attempt 1; "):
        run(pay, crash_at="after lunch")


def test_another_outcome_is_found() -> None:
    """Without a check, too: an action whose outcome depends on a death is not safe."""

    @action("order:interrupted")
    async def interrupted(_order: Order, ctx: ActionContext) -> str:
        return await ctx.step("charge", bank.charge, ctx.operation_id, at_most_once=True)

    with pytest.raises(FaultFound, match=r"after step-started 'charge' in attempt 1: Failed with StepInterrupted"):
        run(interrupted, crash_at=EVERY_STEP, setup=bank.reset)
    safe = run(interrupted, crash_at=EVERY_STEP, setup=bank.reset, outcome=lambda _: "whatever")
    codes = {one.error.code for one in safe.crashes if one.error is not None}
    assert codes == {ErrorCode.STEP_INTERRUPTED}


def test_the_last_attempt_of_an_action() -> None:
    """A lost attempt counts, so an action with a single one fails when its runner dies, and that is found."""

    @action("order:single", max_attempts=1)
    async def single(_order: Order, _ctx: ActionContext) -> None:
        pass

    with pytest.raises(FaultFound, match="after started in attempt 1: Failed with RunnerLost"):
        run(single, crash_at=EVERY_STEP)


def test_the_dead_are_silent() -> None:
    """Nothing of a dead runner's handler runs: neither `except` nor `finally`, not even when Python collects it."""
    said: list[str] = []

    @action("order:clean")
    async def clean(_order: Order, ctx: ActionContext) -> None:
        try:
            await ctx.step("work", bank.charge, "1")
        except BaseException:
            said.append(f"except in {ctx.attempt}")
            raise
        finally:
            said.append(f"finally in {ctx.attempt}")

    run(clean, crash_at="before step-succeeded 'work' in attempt 1")
    gc.collect()
    assert said == ["finally in 2"]


def test_parallel_steps() -> None:
    """Each moment of steps that run at the same time is played, and none of their code goes on after a death."""

    @action("order:many")
    async def many(_order: Order, ctx: ActionContext) -> list[str]:
        return list(await asyncio.gather(*(ctx.step("one", bank.charge, str(one), key=one) for one in range(3))))

    result = run(many, crash_at=EVERY_STEP, setup=bank.reset)
    assert {one.key for one in result.moments if one.event == "step-succeeded"} == {"0", "1", "2"}
    assert result.result == ["charge-0", "charge-1", "charge-2"]


def test_moments_between_attempts() -> None:
    """A runner may die between the record of a failed attempt and the wake-up for the next, and before its ack."""

    @action("order:again")
    async def again(_order: Order, ctx: ActionContext) -> int:
        if ctx.attempt == 1:
            raise OSError("once")
        return 7

    result = run(again, crash_at=EVERY_STEP, outcome=lambda one: one.status)
    points = list(map(str, result.moments))
    assert "after attempt-failed in attempt 1" in points
    assert "before wake-up in attempt 1" in points
    assert "after succeeded in attempt 2" in points


def test_what_is_kept_between_runs() -> None:
    """Without `setup`, a run that goes another way than the first is refused, and the message says why."""

    @action("order:kept")
    async def kept(_order: Order, ctx: ActionContext) -> None:
        if not bank.charges:
            await ctx.step("charge", bank.charge, "1")

    with pytest.raises(RunRefused, match=r"something is kept between the runs: put it back in setup="):
        run(kept, crash_at=EVERY_STEP)


def test_a_check_that_is_wrong() -> None:
    """A check that already fails of the run without a death is the test's own failure, not a crash that was found."""
    with pytest.raises(ZeroDivisionError):
        run(pay, crash_at=EVERY_STEP, check=lambda _: 1 / 0)
    with pytest.raises(FaultFound, match="the check fails: twice"):
        run(
            pay,
            crash_at=EVERY_STEP,
            setup=bank.reset,
            check=lambda _: pytest.fail("twice") if len(bank.charges) > 1 else None,
        )


def test_dead_threads_hold_up_nobody() -> None:
    """The thread of a plain handler that died is waited for by no later run."""
    began = time.monotonic()
    for _ in range(3):
        run(pay_plain, crash_at="before step-succeeded 'charge' in attempt 1")
    assert time.monotonic() - began < 20
    assert all(one.daemon for one in threading.enumerate() if one.name == "order:pay-plain op-1")


def test_moments_of_a_wait() -> None:
    """A runner may die around the record of a sleep and around the timer that ends it; it sleeps once."""

    @action("order:sleepy")
    async def sleepy(_order: Order, ctx: ActionContext) -> str:
        charged = await ctx.step("charge", bank.charge_once, ctx.operation_id)
        await ctx.sleep(7200)
        return charged

    result = run(sleepy, crash_at=EVERY_STEP, setup=bank.reset, check=charged_once)
    assert "before waiting 'sleep' in attempt 1" in map(str, result.moments)
    assert {one.names.count("waiting") for one in result.crashes} == {1}
    assert all(7200 <= one.seconds < 7300 for one in result.crashes)


def test_a_deadline_that_is_shorter_than_a_lease() -> None:
    """A runner that dies behind the end leaves nothing to fail; one that dies before it misses the deadline."""

    @action("quick:work", deadline=20)
    async def work(_given: dict[str, int], _ctx: ActionContext) -> int:
        return 1

    after = run(work, {}, crash_at="after succeeded in attempt 1")
    assert (after.status, after.result) == (Status.SUCCEEDED, 1)
    before = run(work, {}, crash_at="after started in attempt 1")
    assert (before.status, before.error.code) == (Status.FAILED, "DeadlineExceeded")
