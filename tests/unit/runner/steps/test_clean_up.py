"""Where the handler of an attempt after a cancel request is canceled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import pytest

from opstream import ActionCanceledError
from opstream_runner.steps.clean_up import CanceledRecord, CleanUp
from opstream_schemas.event_types.clean_up import StepName
from opstream_schemas.events import CancelRequested, CleanUpBegun, EventData, Started
from opstream_schemas.signals.wait_history import WaitEvent, clean_up_begin
from opstream_schemas.steps.step_history import StepRecord

pytestmark = pytest.mark.unit

LEASE = 30.0


def record(step: str, position: int) -> StepRecord:
    return StepRecord(step=step, input_hash="hash", attempt=1, position=position, result=msgspec.Raw(b"1"))


def started(attempt: int) -> Started:
    return Started(attempt=attempt, runner="r", token="t", ticket=1, lease=LEASE, clean_up=True)


def waits(*events: tuple[int, EventData]) -> tuple[WaitEvent, ...]:
    return tuple(WaitEvent(position, data) for position, data in events)  # type: ignore[arg-type]


def names(records: Iterable[StepRecord]) -> list[str]:
    return [one.step for one in records]


STEPS = (record("charge", 3), record("ship", 5), record("refund", 7))


def test_before_any_clean_up() -> None:
    """An operation whose clean-up has not begun has all steps behind it."""
    begin = clean_up_begin(waits((2, started(1)), (6, CancelRequested())))
    assert begin is None
    assert CanceledRecord.of(STEPS, begin) == CanceledRecord(steps=STEPS)


def test_an_attempt_after_the_cancel() -> None:
    """What the first attempt after the request records belongs to the clean-up; what comes later changes nothing."""
    begin = clean_up_begin(waits((2, started(1)), (4, CancelRequested()), (6, started(2)), (9, started(3))))
    found = CanceledRecord.of(STEPS, begin)
    assert (names(found.steps), found.is_marked) == (["charge", "ship"], False)


def test_a_clean_up_in_the_attempt_itself() -> None:
    """A step that was under way counts as canceled, also if its result was stored before."""
    mark = CleanUpBegun(attempt=1, canceled=(StepName(name="ship"), StepName(name="ship", key="2")))
    begin = clean_up_begin(waits((2, started(1)), (4, CancelRequested()), (6, mark), (9, started(2))))
    found = CanceledRecord.of(STEPS, begin)
    assert (names(found.steps), found.is_marked, found.has_canceled_steps) == (["charge"], True, True)


def test_a_plain_handler_is_canceled_once() -> None:
    """After that its steps run."""
    asked: list[str] = []
    clean_up = CleanUp(CanceledRecord(steps=()), lambda: asked.append("cancel"), lambda: False)
    with pytest.raises(ActionCanceledError):
        clean_up.stop_here()
    clean_up.stop_here()
    assert (asked, clean_up.is_due, clean_up.has_begun) == (["cancel"], False, True)


async def test_an_async_handler_waits_for_its_cancellation() -> None:
    """It goes on only as its task is cancelled."""
    asked = asyncio.Event()
    clean_up = CleanUp(CanceledRecord(steps=()), asked.set, lambda: False)
    task = asyncio.create_task(clean_up.stop_here_async())
    await asked.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clean_up.stop_here_async()


def test_behind_the_last_step() -> None:
    """A handler that was canceled in code of its own is canceled behind the last step that had returned to it."""
    asked: list[str] = []
    found = CanceledRecord(steps=STEPS[:2], is_marked=True)
    clean_up = CleanUp(found, lambda: asked.append("cancel"), lambda: False)
    clean_up.pass_step("charge", "")
    assert asked == []
    clean_up.pass_step("ship", "")
    assert (asked, clean_up.is_due) == (["cancel"], False)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(CanceledRecord(steps=STEPS[:1]), id="no step of the clean-up has run"),
        pytest.param(CanceledRecord(steps=STEPS[:1], is_marked=True, has_canceled_steps=True), id="one was under way"),
    ],
)
def test_not_behind_the_last_step(found: CanceledRecord) -> None:
    """Otherwise it is canceled in a step or wait, where it can put right what that may have done."""
    clean_up = CleanUp(found, lambda: pytest.fail("it is canceled"), lambda: False)
    clean_up.pass_step("charge", "")
    assert clean_up.is_due


def test_patience_of_heartbeats() -> None:
    """They leave the handler time to come to a step, which is less than that until the first regular one."""
    now = 0.0
    clean_up = CleanUp(CanceledRecord(steps=()), lambda: None, lambda: False)
    assert not clean_up.is_ahead
    clean_up.expect(lambda: now, LEASE)
    assert clean_up.is_ahead
    now = LEASE / 3
    assert (clean_up.is_ahead, clean_up.is_due) == (False, True)
