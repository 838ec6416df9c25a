"""A handler that runs in this process: in the loop of the async handlers, or in a thread of its own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext

from .handler_loop import HandlerLoop
from .invocation import HandlerOutcome, invoke


class InProcessHandler:
    """A handler that runs in this process.

    An async handler runs in the loop of the handlers and is stopped by cancellation. A plain handler runs in a thread;
    it stops only if it reads `ActionContext.cancel_requested`.

    Args:
        action: the action to run.
        action_input: JSON.
        context: passed to the handler.
        limit: the result's maximum, in bytes of JSON.
        handler_loop: runs an async handler.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        action_input: msgspec.Raw,
        context: ActionContext,
        limit: int,
        handler_loop: HandlerLoop,
    ) -> None:
        make = partial(invoke, action, action_input, context, limit)
        self.outcome: asyncio.Future[HandlerOutcome]
        self._call = None
        if action.is_async:
            self._call = handler_loop.call(make, f"operation {context.operation_id} ({action.kind})")
            self.outcome = self._call.outcome
        else:
            self.outcome = asyncio.create_task(make())
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
        if self._call is not None:
            self._call.cancel()
