"""A handler that runs in this process, and `supervise`, which awaits any running handler and stops it.

A handler is first asked to stop. When its grace is over it is forced to stop, as far as that is possible.
`child_process.py` has the handler that runs in a process of its own.
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
"""Seconds to wait after the last force before the handler is left behind; a killed process ends within milliseconds."""


class RunningHandler(Protocol):
    """A handler that was called."""

    outcome: asyncio.Task[HandlerOutcome]
    """Its outcome. Cancelling this task ends it at once, even if the handler continues."""

    def request_stop(self) -> None:
        """Ask the handler to stop. Only the first call has an effect, so that nothing disturbs the clean-up."""
        ...

    def expect_signals(self) -> None:
        """Note that the runner will end soon: the service manager that stops it may signal child processes, too."""
        ...

    def force_stop(self) -> None:
        """Force the handler to stop, as its grace is over."""
        ...


class InProcessHandler:
    """A handler in this process.

    An async handler runs in the event loop and is stopped by cancellation. A plain handler runs in a thread; it stops
    only if it reads `ActionContext.cancel_requested`.

    Args:
        action: the action to run.
        action_input: JSON.
        context: passed to the handler.
        limit: the result's maximum, in bytes of JSON.
    """

    def __init__(self, action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int) -> None:
        self.outcome = asyncio.create_task(invoke(action, action_input, context, limit))
        self._is_async = action.is_async
        self._is_stop_requested = False

    def request_stop(self) -> None:
        """Cancel an async handler."""
        if not self._is_stop_requested:
            self._is_stop_requested = True
            self.force_stop()

    def expect_signals(self) -> None:
        """Do nothing: this handler has no process that could receive a signal."""

    def force_stop(self) -> None:
        """Cancel an async handler again, which interrupts its clean-up."""
        if self._is_async:
            self.outcome.cancel()


async def supervise(
    handler: RunningHandler, stop_signal: StopSignal, *, cancel_grace: float, stop_grace: float, name: str
) -> HandlerOutcome:
    """Wait until the handler ends, and stop it when the signal says so. Return its outcome.

    For a client's cancel this waits until the handler has ended, however long that takes. For any other reason it
    leaves a handler behind that still runs after its grace and one force, and returns `Stopped(is_left_behind=True)`.

    Args:
        handler: the running handler.
        stop_signal: the attempt's signal; its reason may change.
        cancel_grace: seconds between request and force for `CLEANUP_REASONS`; for a client's cancel also between one
            force and the next.
        stop_grace: the same seconds for all other reasons.
        name: names the handler in the log.
    """
    reason: StopReason | None = None
    grace: float | None = None
    elapsed = 0.0
    while not handler.outcome.done():
        if stop_signal.reason is not reason:
            reason = stop_signal.reason
            grace = cancel_grace if reason in CLEANUP_REASONS else stop_grace
            elapsed = 0.0
            handler.request_stop()
        if await stop_signal.wait(handler.outcome, grace) or grace is None:
            continue
        elapsed += grace
        handler.force_stop()
        if reason is not StopReason.CANCEL:
            await asyncio.wait([handler.outcome], timeout=_FORCE_STOP_TIMEOUT)
            break
        logger.warning("%s was asked to stop %g s ago and still runs", name, elapsed)
    if not handler.outcome.done():
        logger.warning("%s did not stop within %g s and is left behind", name, grace)
        return Stopped(is_left_behind=True)
    if handler.outcome.cancelled():
        # Either this module cancelled the task, or the handler cancelled its own task.
        return Stopped() if stop_signal.reason is not None else Raised(UNEXPECTED_ERROR, is_meant=False)
    return handler.outcome.result()
