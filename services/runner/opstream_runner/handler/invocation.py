"""Calls a handler: decodes its input, and turns its result or its exception into an outcome. Knows no journal.

The runner and the process of an isolated action both use it, so a client reads the same of either.

Every exception of a handler becomes an outcome, `SystemExit` included: an action must not end the process that runs
other actions.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from functools import partial
from math import inf, nan
from types import NoneType
from typing import Any, Final, cast

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext
from opstream_runner.containment.exceptions import (
    contains_only,
    first_of_kind,
    is_kind,
    log_exception,
    sole_exception,
    type_name,
)
from opstream_runner.containment.forks import leave_fork
from opstream_runner.errors import ActionCanceledError, ActionError, RetryAfter, UnreadableInput
from opstream_runner.steps.step_errors import InvalidStep
from opstream_runner.steps.suspension import AttemptSuspended
from opstream_runner.waits.wait_errors import InvalidWait
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError, WaitBegun
from opstream_schemas.operation.commands import CODE_LIMIT, truncate_error
from opstream_schemas.text import truncate_text

from .encoded_result import encode_result
from .handler_thread import handler_thread_name, run_in_thread

logger = logging.getLogger(__name__)

UNEXPECTED_ERROR: Final = OperationError(
    code=500, message="the action ended with an unexpected error; the runner's log has the details"
)
"""What a client reads after an exception that the author did not intend. It must not leak any details."""
UNSHOWN_ERROR: Final = "the action failed on purpose, but its error can't be shown; the runner's log has the details"
"""The message of an `ActionError` whose own message can't be had."""
_UNRECORDABLE_CODE: Final = 500
"""The code of an `ActionError` whose own code can't be recorded."""
_CODES: Final = range(-(2**63), 2**63)
"""Numbers that every reader of an event can hold."""
_MISSING: Final = object()
_name_of_type: Final[Any] = type.__dict__["__name__"].__get__
_RETRY_CODE: Final = 503
_SHOWN_LENGTH: Final = 40
_RETRY_MESSAGE: Final = "the action asks for another attempt later"


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The handler returned; `result` is JSON."""

    result: bytes


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The handler failed; `error` is for the client."""

    error: OperationError
    is_meant: bool
    """True if the handler raised `ActionError`, so the failure is final."""


class Postponed(msgspec.Struct, frozen=True, tag=True):
    """The handler raised `RetryAfter`: this attempt failed; `error` is for the client."""

    error: OperationError
    seconds: float
    """The next attempt starts no earlier than this many seconds from now."""


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """The handler ended because it was asked to stop."""

    is_left_behind: bool = False
    """True if it still runs: a plain handler in a thread can't be forced to stop."""


class Suspended(msgspec.Struct, frozen=True, tag=True):
    """The handler ended because its operation waits."""

    wait: WaitBegun


HandlerOutcome = Returned | Raised | Postponed | Stopped | Suspended


class Awaiting:
    """No outcome yet: a plain handler returned what has to be awaited. An async function under a plain decorator does.

    Args:
        result: awaitable, once.
    """

    def __init__(self, result: Awaitable[Any]) -> None:
        self.result = result

    def discard(self) -> None:
        """Say that it will not be awaited."""
        if inspect.iscoroutine(self.result):
            self.result.close()


async def invoke(
    action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int
) -> HandlerOutcome:
    """Run the handler once. Never raises. Cancelling the task that runs this cancels an async handler.

    Args:
        action: its handler is called; a plain one in a thread.
        action_input: JSON, decoded here into the handler's type.
        context: passed to the handler. A cancellation is `Stopped` only if the context says that a stop was requested.
        limit: the result's maximum, in bytes of JSON.
    """
    outcome = await call_handler(action, action_input, context, limit)
    return await finish(action, outcome, context, limit) if isinstance(outcome, Awaiting) else outcome


async def finish(action: Action[Any, Any], awaiting: Awaiting, context: ActionContext, limit: int) -> HandlerOutcome:
    """Await what a plain handler returned. Never raises. Cancelling the task that runs this cancels it."""
    try:
        result = await awaiting.result
        context.check_awaited()
        outcome: HandlerOutcome = Returned(encode_result(action, result, limit))
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        outcome = _outcome_of_exception(action, context, error)
    leave_fork()
    return outcome


async def call_handler(
    action: Action[Any, Any], action_input: msgspec.Raw, context: ActionContext, limit: int
) -> HandlerOutcome | Awaiting:
    """Do as `invoke` does, but leave it to the caller where to await what a plain handler returned.

    All of an author's code runs where the handler does: a type may block while it decodes, encodes or is shown.
    """
    if not action.is_async:
        name = handler_thread_name(action.kind, context.operation_id)
        call = partial(invoke_in_this_thread, action, action_input, context, limit, nullcontext())
        try:
            return await run_in_thread(call, name)
        except BaseException as error:  # noqa: BLE001 - there is no thread any more, or this task was cancelled
            return _outcome_of_exception(action, context, error)
    try:
        request = _decode_input(action, action_input)
        outcome = _outcome_of_result(action, context, await action.handler(request, context), limit)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        outcome = _outcome_of_exception(action, context, error)
    leave_fork()
    return outcome


def invoke_in_this_thread(
    action: Action[Any, Any],
    action_input: msgspec.Raw,
    context: ActionContext,
    limit: int,
    interruptible: AbstractContextManager[object],
) -> HandlerOutcome | Awaiting:
    """Run a plain handler once, in the calling thread. Never raises.

    Args:
        action: its handler is called.
        action_input: JSON, decoded here into the handler's type.
        context: passed to the handler.
        limit: the result's maximum, in bytes of JSON.
        interruptible: entered while the handler runs. An exception that it raises in the handler is handled like one of
            the handler's own.
    """
    try:
        request = _decode_input(action, action_input)
        trace, profile = sys.gettrace(), sys.getprofile()
        with interruptible:
            try:
                result = action.handler(request, context)
            finally:
                # What a handler gives to sys.settrace may raise in our code, and leave a lock of logging locked. These
                # are no calls of Python functions, so a trace function does not see them.
                try:
                    if sys.getprofile() is not profile:
                        sys.setprofile(profile)
                finally:
                    if sys.gettrace() is not trace:
                        sys.settrace(trace)
        outcome = _outcome_of_result(action, context, result, limit)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        outcome = _outcome_of_exception(action, context, error)
    leave_fork()
    return outcome


def _decode_input(action: Action[Any, Any], action_input: msgspec.Raw) -> Any:  # noqa: ANN401 - the handler's own type
    try:
        return action.read_input(action_input)
    except UnreadableInput as error:
        if error.__cause__ is not None:
            text = "the input type of %s raised %s"
            is_secret = action.spec.policy.confidential
            log_exception(logger, error.__cause__, text, action.kind, type_name(error.__cause__), is_secret=is_secret)
        raise ActionError(ErrorCode.INVALID_INPUT, str(error)) from error


def _outcome_of_result(
    action: Action[Any, Any],
    context: ActionContext,
    result: Any,  # noqa: ANN401
    limit: int,
) -> HandlerOutcome | Awaiting:
    if not action.is_async and inspect.isawaitable(result):
        return Awaiting(result)
    context.check_awaited()
    return Returned(encode_result(action, result, limit))


def _outcome_of_exception(action: Action[Any, Any], context: ActionContext, error: BaseException) -> HandlerOutcome:
    """Return the outcome of an exception. Never raises, whatever the methods of the exception do."""
    leave_fork()
    faults: list[str] = []
    only = sole_exception(error)  # a task group wraps what one of its tasks raises
    is_secret = action.spec.policy.confidential
    if (suspended := first_of_kind(error, AttemptSuspended, or_else=(asyncio.CancelledError,))) is not None:
        return Suspended(suspended.wait)
    if is_kind(only, InvalidStep) or is_kind(only, InvalidWait):
        text = "operation %s: %s uses a step or a wait wrongly in attempt %s: %s"
        why = type_name(only) if is_secret else only.why
        log_exception(logger, only, text, context.operation_id, action.kind, context.attempt, why, is_secret=is_secret)
    if is_kind(only, ActionError):
        meant = Raised(_client_error(only, faults), is_meant=True)
        _log_faults(action, context, error, faults)
        return meant
    if is_kind(only, RetryAfter):
        postponed = _postponed(only, faults)
        _log_faults(action, context, error, faults)
        return postponed
    # Several tasks of a TaskGroup may each raise a cancellation.
    if contains_only(error, (asyncio.CancelledError, ActionCanceledError)) and context.cancel_requested:
        return Stopped()
    text = "operation %s: %s raised %s in attempt %s"
    values = (context.operation_id, action.kind, type_name(only), context.attempt)
    log_exception(logger, error, text, *values, is_secret=is_secret)
    return Raised(UNEXPECTED_ERROR, is_meant=False)


def _client_error(failed: ActionError, faults: list[str]) -> OperationError:
    """Return what of an author's error can be recorded. It stays final, whatever its values are: the author meant it.

    Args:
        failed: may hold any value, since attributes can be set and a subclass can forget its base class.
        faults: gets what the author must mend, if anything.
    """
    code = _code(_member(failed, "code"), faults)
    message = _text(_member(failed, "message"), "message", faults)
    target = _text(_member(failed, "target"), "target", faults)
    error = OperationError(code=code, message=UNSHOWN_ERROR if message is None else message, target=target or "")
    return truncate_error(error)  # here, so that a process of its own can send it


def _code(code: object, faults: list[str]) -> int | str:
    kind = type(code)
    if issubclass(kind, str):
        text = str.__str__(cast("str", code))  # the value of an enum member, not its name
        if truncate_text(text, CODE_LIMIT) != text:
            faults.append(f"its code must be at most {CODE_LIMIT} bytes of UTF-8 without lone surrogates")
        return text
    if issubclass(kind, int) and kind is not bool and (number := int.__int__(cast("int", code))) in _CODES:
        return number
    shown = "a number beyond 64 bits" if issubclass(kind, int) and kind is not bool else f"of type {_name(kind)}"
    faults.append(f"its code is {shown}, and must be a word like 'OutOfPaper' or an HTTP status like 409")
    return _UNRECORDABLE_CODE


def _postponed(error: RetryAfter, faults: list[str]) -> Postponed:
    """Return the wait for another attempt; without valid seconds it is the action's own backoff."""
    given = _member(error, "seconds")
    try:
        seconds = float(cast("Any", given))
    except BaseException:  # noqa: BLE001 - an author's value may raise anything
        seconds = nan
    if not 0 <= seconds < inf:
        seconds = 0.0
        shown = _shown_number(given)
        faults.append(f"its seconds are {shown}, and must be a finite number from 0 on; the action's backoff is used")
    message = _text(_member(error, "message"), "message", faults)
    return Postponed(truncate_error(OperationError(code=_RETRY_CODE, message=message or _RETRY_MESSAGE)), seconds)


def _shown_number(value: object) -> str:
    """Return a value as text if that is short and calls no method of an author's; else its type."""
    text = repr(value) if type(value) in {float, str, NoneType} else ""
    if type(value) is Decimal or (isinstance(value, int) and type(value) is int and abs(value) < 10**_SHOWN_LENGTH):
        text = str(value)
    return text if 0 < len(text) <= _SHOWN_LENGTH else f"of type {_name(type(value))}"


def _member(error: BaseException, name: str) -> object:
    try:
        return getattr(error, name)
    except BaseException:  # noqa: BLE001 - a property of an author's subclass may raise anything
        return _MISSING


def _text(value: object, name: str, faults: list[str]) -> str | None:
    """Return a value as a real str, since the methods of a subclass may raise; None if there is no text."""
    if value is _MISSING:
        faults.append(f"it has no {name}: call super().__init__(code, message)")
        return None
    if issubclass(type(value), str):
        return str.__str__(cast("str", value))
    try:
        return str.__str__(str(value))
    except BaseException as worse:  # noqa: BLE001 - as above
        faults.append(f"its {name} is of type {_name(type(value))}, whose __str__ raises {type_name(worse)}")
        return None


def _name(kind: type) -> str:
    return str(_name_of_type(kind))


def _log_faults(action: Action[Any, Any], context: ActionContext, error: BaseException, faults: list[str]) -> None:
    if faults:
        text = "operation %s: %s raised an error in attempt %s that can't be recorded as it is; mend the action: %s"
        values = (context.operation_id, action.kind, context.attempt, "; ".join(faults))
        log_exception(logger, error, text, *values, is_secret=action.spec.policy.confidential)
