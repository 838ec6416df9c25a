"""Calls a handler: input in, outcome out. Knows no journal; `attempt.py` records what this returns.

Callers: `work.py` in the runner, `child.py` in the process of an isolated action. So a client reads the same of both.

Whatever a handler raises becomes an outcome here, `SystemExit` included: an action must not be able to end the
process that runs others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import AbstractContextManager
from math import inf
from typing import Any, Final

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext
from opstream_runner.errors import ActionCanceledError, ActionError, RetryAfter
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError
from opstream_schemas.text import check_json

logger = logging.getLogger(__name__)

UNEXPECTED_ERROR: Final = OperationError(
    code=500, message="the action ended with an unexpected error; the runner's log has the details"
)
"""What a client sees of an exception that the action did not mean to raise: nothing that leaks."""
_RETRY_CODE: Final = 503
_RETRY_MESSAGE: Final = "the action asks for another attempt later"


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The handler returned; `result` is JSON."""

    result: bytes


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The handler failed, as `error` tells the client."""

    error: OperationError
    is_meant: bool
    """Whether the handler raised `ActionError`."""


class Postponed(msgspec.Struct, frozen=True, tag=True):
    """The handler raised `RetryAfter`: it failed this time, as `error` tells."""

    error: OperationError
    seconds: float
    """The next attempt begins no sooner."""


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """The handler ended because it was asked to stop."""

    is_left_behind: bool = False
    """It did not end at all."""


HandlerOutcome = Returned | Raised | Postponed | Stopped


async def invoke(
    action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int
) -> HandlerOutcome:
    """Run the handler once. Never raises; cancelling the task that runs this cancels an async handler.

    Args:
        action: whose handler; a plain one gets a thread.
        action_input: JSON, decoded into the handler's type here.
        context: handed to the handler. Only where it says that a stop was requested is a cancellation `Stopped`.
        limit: bytes of JSON that the result may have.
    """
    try:
        request = _decode_input(action, action_input)
        if action.is_async:
            result = await action.handler(request, context)
        else:
            result = await _in_thread(action, request, context)
        return _encode_result(result, limit)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return _outcome_of_exception(action, context, error)


def invoke_in_this_thread(
    action: Action[Any, Any],
    action_input: msgspec.Raw,
    context: ActionContext,
    limit: int,
    interruptible: AbstractContextManager[object],
) -> HandlerOutcome:
    """The same for a plain handler in this very thread. Never raises.

    Args:
        action: whose handler.
        action_input: JSON.
        context: handed to the handler.
        limit: bytes of JSON that the result may have.
        interruptible: entered while the handler runs; what it makes the handler raise is an end like any other.
    """
    try:
        request = _decode_input(action, action_input)
        with interruptible:
            result = action.handler(request, context)
        return _encode_result(result, limit)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return _outcome_of_exception(action, context, error)


def _decode_input(action: Action[Any, Any], action_input: msgspec.Raw) -> Any:  # noqa: ANN401 - the handler's own type
    try:
        return action.decode(action_input)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ActionError(ErrorCode.INVALID_INPUT, str(error)) from error


def _encode_result(result: Any, limit: int) -> Returned:  # noqa: ANN401 - whatever the handler returned
    encoded = msgspec.json.encode(result)
    # A `msgspec.Raw` in it is copied unread, and what nests too deeply is refused by the journal: found there, it
    # would look like a fault of the journal and be tried again.
    msgspec.json.decode(encoded, type=msgspec.Raw)
    check_json(encoded)
    if len(encoded) > limit:
        message = f"the result has {len(encoded)} bytes of JSON, {limit} are allowed: store it elsewhere, return a URL"
        raise ActionError(ErrorCode.RESULT_TOO_LARGE, message)
    return Returned(encoded)


def _outcome_of_exception(action: Action[Any, Any], context: ActionContext, error: BaseException) -> HandlerOutcome:
    if isinstance(error, ActionError | RetryAfter):
        try:
            return Raised(_client_error(error), is_meant=True) if isinstance(error, ActionError) else _postponed(error)
        except Exception as worse:  # noqa: BLE001 - a subclass of the author's may hold, and do, anything
            worse.__cause__ = error
            error = worse
    elif _is_stop_exception(error) and context.cancel_requested:
        return Stopped()
    return _unexpected_outcome(action, context, error)


def _is_stop_exception(error: BaseException) -> bool:
    stops = (asyncio.CancelledError, ActionCanceledError)
    if isinstance(error, BaseExceptionGroup):  # tasks of a TaskGroup, each of which looked
        return error.split(stops)[1] is None
    return isinstance(error, stops)


def _client_error(failed: ActionError) -> OperationError:
    code = failed.code
    if isinstance(code, str):
        code = str.__str__(code)  # of an enum's member the value, not its name
    elif isinstance(code, int) and not isinstance(code, bool):
        code = int(code)
    else:
        raise TypeError(f"the code of an ActionError must be an int or a str, not {code!r}")
    return OperationError(code=code, message=str(failed.message), target=str(failed.target))


def _postponed(error: RetryAfter) -> Postponed:
    seconds = float(error.seconds)
    if not 0 <= seconds < inf:
        raise ValueError(f"the seconds of a RetryAfter must be 0 or more, not {error.seconds!r}")
    return Postponed(OperationError(code=_RETRY_CODE, message=str(error.message) or _RETRY_MESSAGE), seconds)


def _unexpected_outcome(action: Action[Any, Any], context: ActionContext, error: BaseException) -> Raised:
    logger.error(
        "operation %s: %s raised %s in attempt %s",
        context.operation_id,
        action.kind,
        type(error).__name__,
        context.attempt,
        exc_info=error,
    )
    return Raised(UNEXPECTED_ERROR, is_meant=False)


async def _in_thread(action: Action[Any, Any], request: Any, context: ActionContext) -> Any:  # noqa: ANN401
    """Run a plain handler in a thread of its own.

    A daemon thread, not an executor's: it can't be interrupted, and the end of the process must not wait for it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:  # noqa: ANN401
        if not done.done():
            done.set_result((result, error))

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = action.handler(request, context)
        except BaseException as raised:  # noqa: BLE001 - handed over to execute()
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            logger.debug("operation %s: the runner stopped before its thread did", context.operation_id)

    threading.Thread(target=work, name=f"{action.kind} {context.operation_id}", daemon=True).start()
    result, error = await done
    if error is not None:  # StopIteration, too: raised from here it becomes a RuntimeError with it as its cause
        raise error
    return result
