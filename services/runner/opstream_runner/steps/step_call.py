"""One call of `ActionContext.step`: in the handler's thread, or in its event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from opstream_runner.containment.exceptions import is_kind, type_name
from opstream_runner.errors import ActionCanceledError, ActionError, RetryAfter
from opstream_schemas.events import OperationError, StepFailed, StepStarted, StepSucceeded
from opstream_schemas.operation.backoff import backoff_delay
from opstream_schemas.operation.commands import truncate_error
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.steps.step_history import (
    OnChanged,
    RefuseChanged,
    RefuseInterrupted,
    UseResult,
)

from .clean_up import CleanUp
from .step_errors import InvalidStep, StepInputChanged, StepInterrupted
from .step_table import StepEvent, StepTable
from .step_values import decode_step_result, encode_step_result, input_hash, replaced_input_hash, return_type

logger = logging.getLogger(__name__)

NAME_LIMIT: Final = 128
"""Characters that the name of a step may have, and its key."""
_MAX_TRIES: Final = 1_000
_STOP_POLL: Final = 0.1
"""Seconds between two looks whether to stop, in a pause of a plain handler."""
_UNEXPECTED: Final = OperationError(
    code=500, message="the step ended with an unexpected error; the runner's log has the details"
)


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a step. Times are in seconds."""

    on_changed: str | None = None
    """None: as `at_most_once` says."""
    at_most_once: bool = False
    max_attempts: int = 1
    backoff: float = 1.0
    backoff_max: float = 60.0


class _Found(NamedTuple):
    """A recorded result, decoded."""

    value: Any


class StepCall:
    """A step that the attempt has come to. Making it claims the name, before anything is awaited.

    Args:
        table: the attempt's steps.
        step: the name.
        key: which of several of that name; empty for none.
        function: the step's function.
        arguments: its positional arguments.
        keywords: its arguments by name.
        options: the step's options.
        place: where in the code, for messages.

    Raises:
        InvalidStep: name, key, an option or an argument is not valid, or the attempt had a step of that name and key.
    """

    def __init__(
        self,
        table: StepTable,
        step: str,
        key: str | int,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: Mapping[str, Any],
        options: StepOptions,
        place: str,
    ) -> None:
        self._step, self._key = checked_name(step, "name"), checked_name(key, "key") if key != "" else ""
        if not callable(function):
            raise InvalidStep(f"step {step!r}: its second argument is the function to call, not {function!r}")
        self._table = table
        self._function = partial(function, *arguments, **keywords)
        self._is_async = _is_async(function)
        self._options = options
        self._on_changed = _checked(self._step, options)
        self._type = return_type(self._step, function)
        self._hash = input_hash(self._step, arguments, keywords)
        self._stop: asyncio.CancelledError | None = None
        self._fetched: dict[str, bytes] = {}
        table.claim(self._step, self._key, place)

    def run(self) -> Any:  # noqa: ANN401 - what the function returns
        """Return the recorded result, or call the function here and record what it returns.

        Raises:
            StepInputChanged, StepInterrupted: the record forbids to run it.
            ActionCanceledError: the attempt should stop, or has lost its lease.
            StepResultTooLarge, InvalidStep: the result can't be recorded.
            StepNotRecorded: the broker refused it.
            StepUnreadable: the payload store has lost the recorded result.
            BaseException: what the function raises in its last try.
        """
        try:
            return self._run()
        except ActionCanceledError:
            self._table.note_canceled(self._step, self._key)
            raise

    def _run(self) -> Any:  # noqa: ANN401
        if (clean_up := self._due_clean_up()) is not None:
            clean_up.stop_here()
        while isinstance(found := self._look_up(), PayloadRef):
            self._fetched[found.uri] = self._table.fetch(found).result()
        if found is not None:
            return found.value
        if (marked := self._table.mark_clean_up()) is not None:
            marked.result()
        if self._options.at_most_once:
            self._record(self._started()).result()
        for tries in itertools.count(1):
            began = time.monotonic()
            try:
                result = self._not_awaitable(self._function())
            except Exception as error:
                pause = self._pause_after(error, tries, time.monotonic() - began)
                if pause is None:
                    raise
            else:
                value, event = self._success(result, tries, time.monotonic() - began)
                self._record(event).result()
                return value
            self._wait(pause)
        raise AssertionError("a step has a last try")

    async def run_async(self) -> Any:  # noqa: ANN401
        """Do as `run` does, in an event loop. A plain function runs in a thread.

        If this is cancelled, an async function is, too. A plain one can't be: then its end is awaited, and its result
        is recorded before the cancellation goes on, because `Canceled` means that nothing runs any more.
        """
        try:
            return await self._run_async()
        except (asyncio.CancelledError, ActionCanceledError):
            self._table.note_canceled(self._step, self._key)
            raise

    async def _run_async(self) -> Any:  # noqa: ANN401
        if (clean_up := self._due_clean_up()) is not None:
            await clean_up.stop_here_async()
        while isinstance(found := self._look_up(), PayloadRef):
            self._fetched[found.uri] = await asyncio.wrap_future(self._table.fetch(found))
        if found is not None:
            return found.value
        if (marked := self._table.mark_clean_up()) is not None:
            await self._wait_to_the_end(asyncio.wrap_future(marked))
            self._go_on()
        if self._options.at_most_once:
            await self._wait_to_the_end(asyncio.wrap_future(self._record(self._started())))
            self._go_on()
        for tries in itertools.count(1):
            began = time.monotonic()
            try:
                result = await self._call()
            except Exception as error:
                pause = self._pause_after(error, tries, time.monotonic() - began)
                self._go_on()
                if pause is None:
                    raise
            else:
                value, event = self._success(result, tries, time.monotonic() - began)
                await self._wait_to_the_end(asyncio.wrap_future(self._record(event)))
                self._go_on()
                return value
            await asyncio.sleep(pause)
        raise AssertionError("a step has a last try")

    def _not_awaitable(self, result: Any) -> Any:  # noqa: ANN401
        if inspect.isawaitable(result):
            _discard(result)
            raise InvalidStep(
                f"step {self._step!r}: its function is async, and a plain handler awaits nothing: write the handler as "
                "`async def`, or the function as a plain one"
            )
        return result

    async def _call(self) -> Any:  # noqa: ANN401
        if self._is_async:
            return await self._function()
        run = partial(contextvars.copy_context().run, self._function)
        result = await self._wait_to_the_end(asyncio.get_running_loop().run_in_executor(None, run))
        if not inspect.isawaitable(result):
            return result
        if self._stop is not None:
            _discard(result)
            raise self._stop
        return await result

    async def _wait_to_the_end(self, future: asyncio.Future[Any]) -> Any:  # noqa: ANN401
        """Wait for what can't be interrupted. A cancellation that comes meanwhile is kept for `_go_on`."""
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as stop:
                self._stop = stop
        return future.result()

    def _go_on(self) -> None:
        if self._stop is not None:
            raise self._stop

    def _due_clean_up(self) -> CleanUp | None:
        """Return what cancels the handler, if it has come to the first step that was not over before the clean-up."""
        clean_up = self._table.clean_up
        if clean_up is None or not clean_up.is_due:
            return None
        decision = clean_up.history.decide(
            self._step, self._key, self._hash, on_changed=self._on_changed, at_most_once=self._options.at_most_once
        )
        if not isinstance(decision, UseResult):
            return clean_up
        clean_up.pass_step(self._step, self._key)
        return None

    def _look_up(self) -> _Found | PayloadRef | None:
        """Return the recorded result, or the payload that has it and is to be fetched first; None if the function is
        to be called."""
        options, what = self._options, f"step {self._step!r}" + (f" ({self._key})" if self._key else "")
        while True:
            decision = self._table.history.decide(
                self._step, self._key, self._hash, on_changed=self._on_changed, at_most_once=options.at_most_once
            )
            match decision:
                case RefuseInterrupted(attempt=attempt):
                    raise StepInterrupted(
                        f"{what} was begun in attempt {attempt}, has no recorded result, and must not run twice: find "
                        "out what it has done"
                    )
                case RefuseChanged(attempt=attempt):
                    raise StepInputChanged(f"{what} was recorded in attempt {attempt} with other arguments")
                case UseResult(payload=PayloadRef(uri=uri) as payload) if uri not in self._fetched:
                    return payload
                case UseResult(attempt=attempt) as use:
                    result = self._fetched[use.payload.uri] if use.payload else bytes(use.result or b"")
                    try:
                        return _Found(decode_step_result(result, self._type))
                    except Exception as error:
                        if self._on_changed is not OnChanged.RERUN:
                            raise StepInputChanged(
                                f"{what} was recorded in attempt {attempt}, and its result is not of the type that its "
                                "function returns now"
                            ) from error
                    logger.warning("%s runs again: its recorded result is not of the type that it returns now", what)
                    self._hash = replaced_input_hash(self._hash, result)
                case _:
                    return None

    def _success(self, result: Any, tries: int, seconds: float) -> tuple[Any, StepSucceeded]:  # noqa: ANN401
        """Return what the handler gets, and the event that lets later attempts get the same."""
        encoded = encode_step_result(self._step, result, self._table.limit)
        try:
            value = decode_step_result(encoded, self._type)
        except msgspec.ValidationError as error:
            why = f"the result of step {self._step!r} is not what its function says it returns: {error}"
            raise InvalidStep(why) from error
        except Exception as error:
            why = f"step {self._step!r} returns a {type(result).__name__}, which can't be read back from JSON: {error}"
            raise InvalidStep(f"{why}; return what msgspec knows: a Struct, a dataclass, a dict") from error
        event = StepSucceeded(
            attempt=self._table.attempt,
            step=self._step,
            key=self._key,
            input_hash=self._hash,
            result=msgspec.Raw(encoded),
            seconds=seconds,
            tries=tries,
        )
        return value, event

    def _started(self) -> StepStarted:
        return StepStarted(attempt=self._table.attempt, step=self._step, key=self._key, input_hash=self._hash)

    def _record(self, event: StepEvent) -> concurrent.futures.Future[None]:
        return self._table.record(event)

    def _pause_after(self, error: Exception, tries: int, seconds: float) -> float | None:
        """Return the seconds until the next try; None if there is none, which is recorded."""
        options = self._options
        is_over = tries >= options.max_attempts or is_kind(error, ActionError) or self._stop is not None
        if is_over or self._table.should_stop():
            self._record(
                StepFailed(
                    attempt=self._table.attempt,
                    step=self._step,
                    key=self._key,
                    input_hash=self._hash,
                    error=_client_error(error),
                    seconds=seconds,
                    tries=tries,
                )
            )
            return None
        floor = 0.0
        if is_kind(error, RetryAfter):
            with contextlib.suppress(Exception):  # an author's value may be anything
                floor = max(0.0, float(error.seconds)) if math.isfinite(error.seconds) else 0.0
        pause = backoff_delay(
            tries, backoff=options.backoff, backoff_max=options.backoff_max, factor=self._table.jitter(), floor=floor
        )
        text = "step %r raised %s in try %s of %s; the next follows in %.1f s"
        logger.warning(text, self._step, type_name(error), tries, options.max_attempts, pause)
        return pause

    def _wait(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            if self._table.should_stop():
                raise ActionCanceledError(f"the attempt was asked to stop before step {self._step!r} was tried again")
            self._table.clock.pause(min(left, _STOP_POLL))
            left -= _STOP_POLL


def checked_name(value: object, what: str) -> str:
    """Return the name or key of a step or wait as text.

    Raises:
        InvalidStep: it is neither a text nor a whole number, or too long.
    """
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if not 0 < len(text) <= NAME_LIMIT or not text.isprintable():
        raise InvalidStep(f"the {what} of a step must be 1 to {NAME_LIMIT} printable characters, not {value!r}")
    return str.__str__(text)


def _checked(step: str, options: StepOptions) -> OnChanged:
    """Check the options, and return what to do if the input has changed."""
    words = ", ".join(repr(one.value) for one in OnChanged)
    if options.on_changed not in {None, *OnChanged}:
        raise InvalidStep(f"step {step!r}: on_changed must be one of {words}, not {options.on_changed!r}")
    if options.at_most_once and options.on_changed == OnChanged.RERUN:
        raise InvalidStep(f"step {step!r}: on_changed='rerun' would run it twice, which at_most_once forbids")
    if options.at_most_once and options.max_attempts != 1:
        raise InvalidStep(f"step {step!r}: max_attempts must be 1 with at_most_once: it is not tried twice")
    if type(options.max_attempts) is not int or not 1 <= options.max_attempts <= _MAX_TRIES:
        raise InvalidStep(f"step {step!r}: max_attempts must be 1 to {_MAX_TRIES}, not {options.max_attempts!r}")
    for name in ("backoff", "backoff_max"):
        value = getattr(options, name)
        if type(value) not in {int, float} or not 0 < value < math.inf:
            raise InvalidStep(f"step {step!r}: {name} must be more than 0 seconds, not {value!r}")
    if options.on_changed is None:
        return OnChanged.FAIL if options.at_most_once else OnChanged.RERUN
    return OnChanged(options.on_changed)


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async method of that name
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _discard(awaitable: object) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def _client_error(error: BaseException) -> OperationError:
    """Return what a client may read of an error: what its author meant for it, or nothing."""
    if is_kind(error, ActionError):
        with contextlib.suppress(Exception):
            code = error.code if type(error.code) is int else str(error.code)
            return truncate_error(OperationError(code=code, message=str(error.message), target=str(error.target)))
    if is_kind(error, RetryAfter):
        with contextlib.suppress(Exception):
            return truncate_error(OperationError(code=503, message=str(error.message) or _UNEXPECTED.message))
    return _UNEXPECTED
