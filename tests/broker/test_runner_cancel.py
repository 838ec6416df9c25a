"""Cancelling a running operation: the handler is told, and how it ends decides."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec
import pytest

from opstream_journal import Journal, Link
from opstream_runner import ActionContext, ActionFailed, action
from opstream_schemas.events import CancelRequested
from opstream_schemas.operation import Status
from tests.support.journaling import KIND, extend
from tests.support.running import Gate, Input, Stage, gated

pytestmark = pytest.mark.broker

WISH = CancelRequested(by="ann", reason="late")


@pytest.fixture
def stage(link: Link, journal: Journal) -> Stage:
    return Stage(link, journal)


async def wish(stage: Stage) -> None:
    """Ask to cancel op-1."""
    await extend(stage.journal, await stage.state("op-1"), WISH)


async def test_a_handler_that_stops(stage: Stage) -> None:
    """The next heartbeat finds the wish, the handler is cancelled, and only then the operation is Canceled."""
    gate = Gate()
    async with stage.runner([gated(gate, lease=1)]):
        await stage.request("op-1")
        await gate.entered(1)
        await wish(stage)
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.reason, gate.cancelled) == (Status.CANCELED, "late", [1])
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "canceled"]


async def test_a_handler_that_cleans_up(stage: Stage) -> None:
    """A cancelled handler may take its time to clean up, and tell about it: the operation is running until then."""
    running, cleaning, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            await ctx.progress(99, "cleaning up")
            cleaning.set()
            await cleaned.wait()

    async with stage.runner([handler]):
        await stage.request("op-1")
        await running.wait()
        await wish(stage)
        await cleaning.wait()
        assert (await stage.state("op-1")).status is Status.RUNNING
        cleaned.set()
        await stage.ended("op-1")
    names = ["requested", "started", "cancel-requested", "progressed", "canceled"]
    assert await stage.names("op-1") == names


@pytest.mark.parametrize(
    ("error", "code"), [(None, None), (ActionFailed("Half", "half done"), "Half"), (OSError("broken"), 500)]
)
async def test_a_handler_that_ends_otherwise(stage: Stage, error: Exception | None, code: int | str | None) -> None:
    """A cancelled handler that returns has succeeded, and one that raises something else has failed."""
    running = asyncio.Event()

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> str:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return "done"

    async with stage.runner([handler]):
        await stage.request("op-1")
        await running.wait()
        await wish(stage)
        operation = await stage.ended("op-1")
    if code is None:
        assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(b'"done"'))
    else:
        assert operation.error is not None
        assert (operation.status, operation.error.code) == (Status.FAILED, code)


async def test_a_plain_handler(stage: Stage) -> None:
    """A thread can't be interrupted: it ends by itself, and its result is recorded."""
    release = threading.Event()
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    @action(str(KIND), lease=1)
    def handler(request: Input, ctx: ActionContext) -> str:
        loop.call_soon_threadsafe(running.set)
        release.wait(10)
        return "done"

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        await wish(stage)
        (dispatcher,) = runner._dispatchers.values()
        attempt = dispatcher._attempts["op-1"]
        await stage.reached("op-1", lambda _: attempt._verdict is not None)
        release.set()
        operation = await stage.ended("op-1")
    assert operation.status is Status.SUCCEEDED


async def test_a_hint_is_heeded_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a long lease, a hint makes the runner look now, and soon again for a wish that was stored only after it."""
    monkeypatch.setattr("opstream_runner.attempt._SECOND_LOOK", 1.0)
    gate = Gate()
    async with stage.runner([gated(gate, lease=60)]) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        runner.hint(KIND, "op-unknown")
        runner.hint(KIND, "op-1")
        (dispatcher,) = runner._dispatchers.values()
        await stage.reached("op-1", lambda _: dispatcher._attempts["op-1"]._check is None)
        began = time.monotonic()
        await wish(stage)
        operation = await stage.ended("op-1")
        took = time.monotonic() - began
    assert (operation.status, took < 5) == (Status.CANCELED, True)


async def test_a_wish_that_the_outcome_overtakes(stage: Stage) -> None:
    """An outcome decided without knowing of a wish is decided again, and stored."""
    gate = Gate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        await wish(stage)
        gate.open()
        await stage.ended("op-1")
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "succeeded"]


async def test_a_wish_and_a_stop(stage: Stage) -> None:
    """An operation to be canceled whose runner stops is canceled by the next one, without another attempt."""
    gate = Gate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        await wish(stage)
    async with stage.runner([gated(gate)]):
        operation = await stage.ended("op-1")
    assert (operation.status, operation.reason, gate.attempts) == (Status.CANCELED, "late", [("op-1", 1)])
