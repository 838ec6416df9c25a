"""A handler at work, and how it is made to stop. Caller: `attempt.py`; `isolation.py` is the other kind of work.

First it is asked, then, when its grace is over, something stronger is done, if there is anything.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext

from .invocation import UNEXPECTED_ERROR, HandlerOutcome, Raised, Stopped, invoke
from .stop_reason import CLEANUP_REASONS, StopReason, StopSignal

logger = logging.getLogger(__name__)

_FORCE_STOP_TIMEOUT: Final = 0.5
"""Seconds between insisting for the last time and leaving a handler behind: a killed process takes milliseconds."""


class RunningHandler(Protocol):
    """A handler that was called."""

    outcome: asyncio.Task[HandlerOutcome]
    """How it ended. Cancelled from outside it ends at once, whatever becomes of the handler."""

    def request_stop(self) -> None:
        """Ask it to stop. It is asked once, so that its clean-up is not disturbed."""
        ...

    def expect_signals(self) -> None:
        """This process is about to end: who stops it may stop those of its handlers, too."""
        ...

    def force_stop(self) -> None:
        """Its grace is over."""
        ...


class InProcessHandler:
    """A handler in this process: in the event loop, where it is cancelled once and then again, or in a thread, which
    can only look at its context.

    Args:
        action: what to run.
        action_input: JSON.
        context: for the handler.
        limit: bytes of JSON that the result may have.
    """

    def __init__(self, action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int) -> None:
        self.outcome = asyncio.create_task(invoke(action, action_input, context, limit))
        self._is_async = action.is_async
        self._is_asked = False

    def request_stop(self) -> None:
        """Cancel an async handler."""
        if not self._is_asked:
            self._is_asked = True
            self.force_stop()

    def expect_signals(self) -> None:
        """It has no process of its own that somebody could stop."""

    def force_stop(self) -> None:
        """Cancel it again: its clean-up is interrupted."""
        if self._is_async:
            self.outcome.cancel()


async def supervise(
    work: RunningHandler, judgement: StopSignal, *, cancel_grace: float, stop_grace: float, name: str
) -> HandlerOutcome:
    """How the handler ended, by itself or by a verdict.

    A client's wish waits for as long as the handler runs. For any other verdict it is left behind when its grace is
    over and nothing helped; then this says `Stopped`.

    Args:
        work: the handler.
        judgement: the verdict on its attempt, which may change.
        cancel_grace: seconds between asking and insisting for a `CLEANUP_REASONS` verdict; for a client's wish also
        between
            insisting and insisting again.
        stop_grace: seconds for any other verdict.
        name: what to call it in the log.
    """
    heeded: StopReason | None = None
    grace: float | None = None
    asked = 0.0
    while not work.outcome.done():
        if judgement.reason is not heeded:
            heeded = judgement.reason
            grace = cancel_grace if heeded in CLEANUP_REASONS else stop_grace
            asked = 0.0
            work.request_stop()
        if await judgement.wait(work.outcome, grace) or grace is None:
            continue
        asked += grace
        work.force_stop()
        if heeded is not StopReason.CANCEL:
            await asyncio.wait([work.outcome], timeout=_FORCE_STOP_TIMEOUT)
            break
        logger.warning("%s was asked to stop %g s ago and still runs", name, asked)
    if not work.outcome.done():
        logger.warning("%s did not stop within %g s and is left behind", name, grace)
        return Stopped(is_left_behind=True)
    if work.outcome.cancelled():
        # Nothing but our own cancellation gets here, or a handler that cancels its own task.
        return Stopped() if judgement.reason is not None else Raised(UNEXPECTED_ERROR, is_meant=False)
    return work.outcome.result()
