"""Cancelling a called handler: what the handler may do then, and what happens to its thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from opstream_runner import Action, ActionCanceledError, ActionContext, ActionError, action
from opstream_runner.handler.invocation import UNEXPECTED_ERROR, HandlerOutcome, Raised, Returned, Stopped, invoke
from opstream_schemas.events import OperationError

pytestmark = pytest.mark.unit

unexpected = Raised(UNEXPECTED_ERROR, is_meant=False)


class Input(msgspec.Struct):
    """The input of this module's handlers."""


async def run(one: Action[..., Any], cancel_requested: Callable[[], bool] = lambda: False) -> HandlerOutcome:
    context = ActionContext(operation_id="op-1", cancel_requested=cancel_requested)
    async with asyncio.timeout(5):
        return await invoke(one, msgspec.Raw(b"{}"), context, 1000)


async def canceled(one: Action[..., Any], running: asyncio.Event) -> HandlerOutcome:
    """The outcome of a handler that is asked to stop once it runs, as the runner does it."""
    asked = threading.Event()
    task = asyncio.create_task(run(one, asked.is_set))
    await running.wait()
    asked.set()
    task.cancel()
    return await task


async def test_an_honoured_cancellation() -> None:
    """An async handler that is cancelled and lets the cancellation pass has stopped, after its clean-up."""
    running, cleaned = asyncio.Event(), asyncio.Event()

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    assert await canceled(handler, running) == Stopped()
    assert cleaned.is_set()


async def test_a_swallowed_cancellation() -> None:
    """An async handler that is cancelled and returns anyway has returned."""
    running = asyncio.Event()

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            running.set()
            await asyncio.Event().wait()
        return "done all the same"

    assert await canceled(handler, running) == Returned(b'"done all the same"')


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("clean-up failed"), unexpected),
        (ActionError(503, "half done"), Raised(OperationError(code=503, message="half done"), is_meant=True)),
        (asyncio.CancelledError("its own"), Stopped()),
    ],
)
async def test_a_cancellation_that_ends_in_an_error(error: BaseException, outcome: HandlerOutcome) -> None:
    """An async handler that is cancelled and raises another exception has raised that one."""
    running = asyncio.Event()

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    assert await canceled(handler, running) == outcome


async def test_a_cancellation_before_the_first_step() -> None:
    """A handler that is cancelled before its start is never called."""
    begun: list[bool] = []

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        begun.append(True)

    task = asyncio.create_task(run(handler))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == []


async def test_a_plain_handler_is_left_behind() -> None:
    """A thread can't be interrupted: after a cancellation it is left behind, and its later result is discarded."""
    loop = asyncio.get_running_loop()
    running, release, over = asyncio.Event(), threading.Event(), threading.Event()

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> str:
        loop.call_soon_threadsafe(running.set)
        release.wait(5)
        over.set()
        return "too late"

    assert await canceled(handler, running) == Stopped()
    release.set()
    assert await asyncio.to_thread(over.wait, 5)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_handler_that_reads_its_context(is_async: bool) -> None:
    """A handler that was asked to stop and lets ActionCanceledError pass has stopped, whatever `except Exception` is
    around it."""

    def step(ctx: ActionContext) -> None:
        try:
            ctx.check_canceled()
        except Exception as error:
            raise AssertionError("swallowed") from error

    @action("book:act")
    async def asynchronous(request: Input, ctx: ActionContext) -> None:
        step(ctx)

    @action("book:act")
    def plain(request: Input, ctx: ActionContext) -> None:
        step(ctx)

    assert await run(asynchronous if is_async else plain, lambda: True) == Stopped()


async def test_tasks_that_read_the_context() -> None:
    """A handler's tasks may stop it, too: a group that contains only cancellations counts as one."""

    async def look(ctx: ActionContext) -> None:
        ctx.check_canceled()

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(look(ctx))
            group.create_task(look(ctx))

    @action("book:act")
    async def broken(request: Input, ctx: ActionContext) -> None:
        raise BaseExceptionGroup("both", [ActionCanceledError(), OSError("broken")])

    assert [await run(one, lambda: True) for one in (handler, broken)] == [Stopped(), unexpected]


@pytest.mark.parametrize(
    "error", [ActionCanceledError(), asyncio.CancelledError(), BaseExceptionGroup("", [ActionCanceledError()])]
)
async def test_a_cancellation_without_a_request(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that cancels itself has failed: it must not be retried for ever."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        raise error

    assert await run(handler) == unexpected
    assert "op-1" in caplog.text


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("clean-up failed"), unexpected),
        (ActionError(503, "half done"), Raised(OperationError(code=503, message="half done"), is_meant=True)),
    ],
)
async def test_a_plain_handler_that_ends_in_an_error(error: Exception, outcome: HandlerOutcome) -> None:
    """A plain handler that was asked to stop and raises another exception has raised that one."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> None:
        raise error

    assert await run(handler, lambda: True) == outcome
