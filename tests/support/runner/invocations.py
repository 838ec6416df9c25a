"""Handlers that do what a test says, and what becomes of their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from opstream_runner import Action, ActionContext, ActionError, RetryAfter, action
from opstream_runner.handler.invocation import UNEXPECTED_ERROR, HandlerOutcome, Raised, invoke
from opstream_schemas.events import OperationError

LIMIT: Final = 1000
"""The most bytes of a result."""
Body = Callable[[], Any]


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """The input of the handlers; some numbers raise."""

    count: int = 0

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count can't be negative")
        if self.count > 100:
            raise LookupError("no such number")
        meant = {98: ActionError("OutOfPaper", "none left"), 99: RetryAfter(3, "later"), 100: MemoryError()}
        if self.count in meant:
            raise meant[self.count]


def asynchronous(body: Body) -> Action[..., Any]:
    """An action with an async handler that calls `body`."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> Any:
        return body()

    return handler


def plain(body: Body) -> Action[..., Any]:
    """An action with a plain handler that calls `body`."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> Any:
        return body()

    return handler


KINDS: Final = (asynchronous, plain)


async def run(one: Action[..., Any], *, given: bytes = b"{}", limit: int = LIMIT) -> HandlerOutcome:
    """Call a handler with an input, and return what became of it."""
    context = ActionContext(operation_id="op-1", attempt=2)
    async with asyncio.timeout(5):
        return await invoke(one, msgspec.Raw(given), context, limit)


def raising(error: BaseException) -> Body:
    """A body that raises."""

    def body() -> NoReturn:
        raise error

    return body


def failed(code: int | str, message: str, target: str = "") -> Raised:
    """The outcome of an `ActionError`."""
    return Raised(OperationError(code=code, message=message, target=target), is_meant=True)


UNEXPECTED: Final = Raised(UNEXPECTED_ERROR, is_meant=False)
"""The outcome of any other exception."""
