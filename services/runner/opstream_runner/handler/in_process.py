"""A handler that runs in this process: in the loop of the async handlers, or in a thread of its own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext

from .handler_loop import HandlerCall, HandlerLoop
from .invocation import Awaiting, HandlerOutcome, Stopped, call_handler, finish, invoke


class InProcessHandler:
    """A handler that runs in this process.

    An async handler runs in the loop of the handlers and is stopped by cancellation. A plain handler runs in a thread;
    it stops only if it reads `ActionContext.cancel_requested`. What it returns is awaited in the loop if it can be.

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
        self._handler_loop = handler_loop
        self._name = f"operation {context.operation_id} ({action.kind})"
        self._is_stop_requested = False
        self.outcome: asyncio.Future[HandlerOutcome]
        self._call: HandlerCall | None = None
        if action.is_async:
            self._call = handler_loop.call(partial(invoke, action, action_input, context, limit), self._name)
            self.outcome = self._call.outcome
        else:
            self.outcome = asyncio.create_task(self._run_plain(action, action_input, context, limit))

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

    async def _run_plain(
        self, action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int
    ) -> HandlerOutcome:
        outcome = await call_handler(action, action_input, context, limit)
        if not isinstance(outcome, Awaiting):
            return outcome
        if self._is_stop_requested:
            outcome.discard()
            return Stopped()
        self._call = self._handler_loop.call(partial(finish, action, outcome, context, limit), self._name)
        return await self._call.outcome
