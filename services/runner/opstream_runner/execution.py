"""Calls a handler: input in, outcome out. Knows no journal; `attempt.py` records what this returns.

Whatever a handler raises becomes an outcome here, `SystemExit` included: an action must not be able to end the
process that runs others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, Final

import msgspec

from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError

from .actions import Action, ActionContext
from .errors import ActionFailed

logger = logging.getLogger(__name__)

UNEXPECTED: Final = OperationError(
    code=500, message="the action ended with an unexpected error; the runner's log has the details"
)
"""What a client sees of an exception that the action did not mean to raise: nothing that leaks."""


class Returned(msgspec.Struct, frozen=True):
    """The handler returned; `result` is JSON."""

    result: bytes


class Raised(msgspec.Struct, frozen=True):
    """The handler failed, as `error` tells the client."""

    error: OperationError
    is_meant: bool
    """Whether the handler raised `ActionFailed`."""


class Stopped(msgspec.Struct, frozen=True):
    """The handler ended because it was cancelled."""


Outcome = Returned | Raised | Stopped


async def execute(action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int) -> Outcome:
    """Run the handler once. Never raises; cancelling the task that runs this cancels an async handler.

    Args:
        action: whose handler.
        action_input: JSON, decoded into the handler's type here.
        context: handed to the handler.
        limit: bytes of JSON that the result may have.
    """
    try:
        request = msgspec.json.decode(action_input, type=action.input_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Raised(OperationError(code=ErrorCode.INVALID_INPUT, message=str(error)), is_meant=True)
    try:
        if action.is_async:
            result = await action.handler(request, context)
        else:
            result = await _in_thread(action, request, context)
        encoded = msgspec.json.encode(result)
    except ActionFailed as failed:
        meant = OperationError(code=failed.code, message=failed.message, target=failed.target)
        return Raised(meant, is_meant=True)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return Stopped()
        return _unexpected(action, context, asyncio.CancelledError("the handler cancelled itself"))
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return _unexpected(action, context, error)
    if len(encoded) > limit:
        message = f"the result has {len(encoded)} bytes of JSON, {limit} are allowed: store it elsewhere, return a URL"
        return Raised(OperationError(code=ErrorCode.RESULT_TOO_LARGE, message=message), is_meant=True)
    return Returned(encoded)


def _unexpected(action: Action[Any, Any], context: ActionContext, error: BaseException) -> Raised:
    logger.error(
        "operation %s: %s raised %s in attempt %s",
        context.operation_id,
        action.kind,
        type(error).__name__,
        context.attempt,
        exc_info=error,
    )
    return Raised(UNEXPECTED, is_meant=False)


async def _in_thread(action: Action[Any, Any], request: Any, context: ActionContext) -> Any:  # noqa: ANN401
    """Run a plain handler in a thread of its own.

    A daemon thread, not an executor's: it can't be interrupted, and the end of the process must not wait for it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:  # noqa: ANN401
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = action.handler(request, context)
        except StopIteration as stop:
            # A future refuses StopIteration; wrapped it is still in the log.
            error = RuntimeError("the handler raised StopIteration")
            error.__cause__ = stop
        except BaseException as raised:  # noqa: BLE001 - handed over to execute()
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            logger.debug("operation %s: the runner stopped before its thread did", context.operation_id)

    threading.Thread(target=work, name=f"{action.kind} {context.operation_id}", daemon=True).start()
    return await done
