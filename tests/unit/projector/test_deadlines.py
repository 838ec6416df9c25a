"""What arming costs: nothing for what ends quickly; and parts of a process that live and end together."""

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
from opstream_schemas.events import EventData
from opstream_schemas.operation.state import Operation
from tests.support.projector.projection import LIFE
from tests.support.schemas.histories import NOW, History, request

pytestmark = pytest.mark.unit


class Asked(Exception):
    """The broker was asked."""


class Untouchable:
    """A link that tells when it is used."""

    def __getattr__(self, name: str) -> Any:
        raise Asked(name)


def armer(trail: float = 30.0) -> DeadlineScheduler:
    return DeadlineScheduler(cast("Connection", Untouchable()), trail=trail)


def states(*datas: EventData, seconds: float = 86_400.0, lasting: float = 0.0) -> list[Operation]:
    """Every state of an operation that has some time from its request, and takes some."""
    history = History().append(request(deadline=NOW + timedelta(seconds=seconds)), *datas)
    finished_at = NOW + timedelta(seconds=lasting)
    return [msgspec.structs.replace(one, finished_at=finished_at) if one.is_terminal else one for one in history.states]


async def test_an_ordinary_operation_costs_no_call() -> None:
    """One that has time enough, and ends before the trail comes by."""
    effect = armer()
    for operation in states(*LIFE, lasting=14.9):
        await effect.apply(operation)


async def test_a_slow_one_is_disarmed() -> None:
    """One that the trail may have found open: its half covers clocks that differ."""
    *open_ones, ended = states(*LIFE, lasting=15.0)
    effect = armer()
    for operation in open_ones:
        await effect.apply(operation)
    with pytest.raises(Asked):
        await effect.apply(ended)


@pytest.mark.parametrize(("seconds", "is_near"), [(59.9, True), (60.0, False), (-1.0, True)])
async def test_what_is_near(seconds: float, is_near: bool) -> None:
    """Less than a minute from the request, whatever the time is now."""
    [operation] = states(seconds=seconds)
    with pytest.raises(Asked) if is_near else contextlib.nullcontext():
        await armer().apply(operation)


async def test_an_end_is_remembered_also_if_it_can_not_be_disarmed() -> None:
    """The trail need not look at an operation that has ended."""
    *_, ended = states(*LIFE, lasting=100.0)
    effect = armer()
    with pytest.raises(Asked):
        await effect.apply(ended)
    assert ended.id in effect.ended


def test_recent_ids_are_bounded() -> None:
    """The last ones are known, and those of long ago are not."""
    ids = RecentIds(10)
    for number in range(100):
        ids.add(str(number))
        assert all(str(one) in ids for one in range(max(0, number - 9), number + 1))
    assert sum(str(one) in ids for one in range(100)) <= 20


async def test_an_id_added_again() -> None:
    """An id that comes again and again pushes no other one out."""
    ids = RecentIds(2)
    ids.add("a")
    for _ in range(10):
        ids.add("b")
    assert "a" in ids


async def test_one_failure_ends_all() -> None:
    """The first part that fails ends the others, which may clean up, and its error is the one that is told."""
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
    """Whoever stops all gives each part its time to clean up: longer than a tenth of a second, and uninterrupted."""
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
