"""What scheduling costs: nothing for operations that end quickly. Loops of a process that run and end together."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from opstream_journal import Connection
from opstream_journal.runtime.service import cancel_all, run_until_first_ends
from opstream_projector.deadlines import DeadlineScheduler, RecentIds
from opstream_schemas.events import Canceled, EventData
from opstream_schemas.operation.state import Operation
from tests.support.projector.projection import LIFE
from tests.support.schemas.histories import NOW, History, request

pytestmark = pytest.mark.unit


class Asked(Exception):
    """The broker was asked."""


class Untouchable:
    """A connection that raises when it is used."""

    def __getattr__(self, name: str) -> Any:
        raise Asked(name)


def scheduler(scan_delay: float = 30.0) -> DeadlineScheduler:
    return DeadlineScheduler(cast("Connection", Untouchable()), scan_delay=scan_delay)


def states(*datas: EventData, seconds: float = 86_400.0, lasting: float = 0.0) -> list[Operation]:
    """Every state of an operation with a deadline and a duration, both in seconds."""
    history = History().append(request(deadline=NOW + timedelta(seconds=seconds)), *datas)
    finished_at = NOW + timedelta(seconds=lasting)
    return [msgspec.structs.replace(one, finished_at=finished_at) if one.is_terminal else one for one in history.states]


async def test_a_start_timer_is_canceled_with_its_operation() -> None:
    """An operation with a start time may have a timer for it, however soon it was canceled."""
    later = History().append(request(start_at=NOW + timedelta(hours=1)), Canceled()).operation
    with pytest.raises(Asked):
        await scheduler().apply(msgspec.structs.replace(later, finished_at=NOW))


async def test_an_ordinary_operation_costs_no_call() -> None:
    """One with a long deadline that ends before the scanner gets to it."""
    effect = scheduler()
    for operation in states(*LIFE, lasting=14.9):
        await effect.apply(operation)


async def test_a_slow_one_is_disarmed() -> None:
    """One that the scanner may have found open: half of the scan delay is a margin for differing clocks."""
    *open_ones, ended = states(*LIFE, lasting=15.0)
    effect = scheduler()
    for operation in open_ones:
        await effect.apply(operation)
    with pytest.raises(Asked):
        await effect.apply(ended)


@pytest.mark.parametrize(("seconds", "is_near"), [(59.9, True), (60.0, False), (-1.0, True)])
async def test_what_is_near(seconds: float, is_near: bool) -> None:
    """Less than a minute from the request, whatever the time is now."""
    [operation] = states(seconds=seconds)
    with pytest.raises(Asked) if is_near else contextlib.nullcontext():
        await scheduler().apply(operation)


async def test_an_end_is_remembered_also_if_it_can_not_be_disarmed() -> None:
    """The scheduler remembers operations that have ended, for the scanner."""
    *_, ended = states(*LIFE, lasting=100.0)
    effect = scheduler()
    with pytest.raises(Asked):
        await effect.apply(ended)
    assert ended.id in effect.ended


def test_recent_ids_are_bounded() -> None:
    """The newest ids are kept, old ones are dropped."""
    ids = RecentIds(10)
    for number in range(100):
        ids.add(str(number))
        assert all(str(one) in ids for one in range(max(0, number - 9), number + 1))
    assert sum(str(one) in ids for one in range(100)) <= 20


async def test_an_id_added_again() -> None:
    """An id that is added repeatedly drops no other one."""
    ids = RecentIds(2)
    ids.add("a")
    for _ in range(10):
        ids.add("b")
    assert "a" in ids


async def test_one_failure_ends_all() -> None:
    """The first loop that fails ends the others, which may clean up; its error is raised."""
    cleaned = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise Asked

    with pytest.raises(Asked):
        await run_until_first_ends(endless(), failing())
    assert cleaned.is_set()


async def test_a_cancellation_comes_once() -> None:
    """Stopping gives each loop its time to clean up: more than a tenth of a second, and uninterrupted."""
    cleaned = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)
            cleaned.set()

    task = asyncio.create_task(run_until_first_ends(slow()))
    await asyncio.sleep(0)
    await cancel_all(task)
    assert task.cancelled()
    assert cleaned.is_set()
