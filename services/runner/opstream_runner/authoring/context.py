"""The context that a handler gets: its operation, progress and cancellation. Imports no broker code, like `action`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, SupportsFloat, TypeVar, overload

from opstream_runner.errors import ActionCanceledError
from opstream_runner.steps.pending_calls import PendingCalls, caller_place, is_in_loop
from opstream_runner.steps.step_call import StepCall, StepOptions
from opstream_runner.steps.step_table import NO_LIMIT, StepEvent, StepTable, keep_nothing
from opstream_runner.steps.wait_call import WaitCall, checked_moment, end_of_sleep
from opstream_runner.waits.wait_table import WaitTable
from opstream_schemas.events import WaitBegun

from .child_runs import ChildRuns
from .files.attached_file import FileRequest, file_request, keep_no_file
from .files.file_call import future_of
from .files.uploaded_file import FetchRequest, UploadedFile, fetch_request, find_no_file
from .type_schema import announced_schema

T = TypeVar("T")

ProgressReporter = Callable[[float, str], Awaitable[None]]


class _CompletedAwaitable:
    def __await__(self) -> Generator[None, None, None]:
        yield from ()


COMPLETED: Final[Awaitable[None]] = _CompletedAwaitable()
"""An awaitable that is done."""


def discard_progress(_percent: float, _message: str) -> Awaitable[None]:
    """Discard a progress report: the default in a unit test."""
    return COMPLETED


def never_canceled() -> bool:
    """Return False: an attempt in a unit test is never canceled by default."""
    return False


class ActionContext(ChildRuns):
    """The operation that a handler works for. A unit test makes its own.

    Attributes:
        operation_id: the same in all attempts, so a key for idempotent work.
        resource_id: the resource's own id from the URL; empty for `POST /resource:action`.
        attempt: 1 for the first; higher after an attempt that failed, or whose runner was lost or stopped.
        traceparent: W3C Trace Context of the attempt's span, or of the request if the runner does not trace; empty
            without one. Pass it on in the action's calls.
        uploads: the files that the client has uploaded for the operation (docs/payloads.md).
    """

    def __init__(
        self,
        *,
        operation_id: str,
        resource_id: str = "",
        attempt: int = 1,
        traceparent: str = "",
        report: ProgressReporter = discard_progress,
        cancel_requested: Callable[[], bool] = never_canceled,
        make_steps: Callable[[], StepTable] | None = None,
        make_waits: Callable[[], WaitTable] = WaitTable,
        attach_file: Callable[[FileRequest], Future[None]] = keep_no_file,
        uploads: tuple[UploadedFile, ...] = (),
        fetch_file: Callable[[FetchRequest], Future[None]] = find_no_file,
    ) -> None:
        self.operation_id = operation_id
        self.resource_id = resource_id
        self.attempt = attempt
        self.traceparent = traceparent
        self._report = report
        self._cancel_requested = cancel_requested
        self._make_steps = make_steps or self._steps_of_a_test
        self._steps: StepTable | None = None
        self._make_waits = make_waits
        self._waits: WaitTable | None = None
        self._attach_file = attach_file
        self.uploads = uploads
        self._fetch_file = fetch_file
        self._calls = PendingCalls()

    @property
    def cancel_requested(self) -> bool:
        """True if this attempt should stop.

        The reason is a client's cancel, a timeout or deadline, the runner's shutdown, or a later attempt. Cheap, and
        safe to read from any thread. Once true it stays true. A unit test passes a function as `cancel_requested`,
        e.g. `threading.Event().is_set`.
        """
        return self._cancel_requested()

    def check_canceled(self) -> None:
        """Stop here if this attempt should stop. Call it between two steps of a plain handler.

        Raises:
            ActionCanceledError: `cancel_requested` is true. Do not catch it; clean up in `finally`.
        """
        if self._cancel_requested():
            raise ActionCanceledError(f"attempt {self.attempt} of operation {self.operation_id} was asked to stop")

    def progress(self, percent: float, message: str = "") -> Awaitable[None]:
        """Report progress. Cheap to call often: at most one event per percent or 10 seconds is recorded.

        An async handler awaits it, and so lets other tasks run; a plain one, in its thread, just calls it. While the
        broker is unreachable, progress is dropped so that the action is not delayed.

        Args:
            percent: 0 to 100.
            message: for a person; cut at 4 KiB.

        Raises:
            ValueError: percent is out of range, or NaN.
            TypeError: percent is no number, or the message no str.
        """
        number = _as_number(percent)
        if not 0 <= number <= 100:
            raise ValueError(f"progress must lie between 0 and 100 percent, not {number}")
        if not isinstance(message, str):
            raise TypeError(f"the message of progress must be a str, not {type(message).__name__}")
        return self._report(number, str.__str__(message))

    @overload
    def step(
        self,
        name: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,  # noqa: ANN401
        key: str | int = "",
        on_changed: Literal["rerun", "fail", "keep"] | None = None,
        at_most_once: bool = False,
        max_attempts: int = 1,
        backoff: float = 1.0,
        backoff_max: float = 60.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,  # noqa: ANN401
        key: str | int = "",
        on_changed: Literal["rerun", "fail", "keep"] | None = None,
        at_most_once: bool = False,
        max_attempts: int = 1,
        backoff: float = 1.0,
        backoff_max: float = 60.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any: ...  # noqa: ANN401 - an async handler awaits it, a plain one has the result
    def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        key: str | int = "",
        on_changed: Literal["rerun", "fail", "keep"] | None = None,
        at_most_once: bool = False,
        max_attempts: int = 1,
        backoff: float = 1.0,
        backoff_max: float = 60.0,
        **kwargs: Any,
    ) -> Any:
        """Run a function once, and return its result; later attempts get the recorded result without running it.

        An async handler awaits it: `copied = await ctx.step("copy", copy_files, source, target)`. An async function
        runs in its loop, a plain one in a thread. In a plain handler it calls the function and returns its result.
        The result is always the one that is recorded as JSON, decoded as the type that the function says it returns.
        A function whose runner dies before its result is recorded runs again (docs/steps.md).

        Args:
            name: by which later attempts find the step; unique within an attempt, together with `key`.
            function: the step.
            args: its arguments. They have JSON, whose hash is recorded.
            key: which of several steps of the name, as in a loop.
            on_changed: what to do if the step is recorded with other arguments: `"rerun"` it (the default), `"fail"`
                the operation (the default with `at_most_once`), or `"keep"` the recorded result.
            at_most_once: record that it begins, and never run it twice.
            max_attempts: how often its function is called in an attempt, until it raises no error.
            backoff: seconds before the second try; doubled after each further one.
            backoff_max: the most of these seconds.
            kwargs: further arguments of the function, by name.

        Raises:
            InvalidStep: the attempt had a step of that name and key before, or something about the step is not valid.
            StepInputChanged: it is recorded with other arguments, and `on_changed` is `"fail"`.
            StepInterrupted: it has begun in an earlier attempt, and must not run twice.
            StepResultTooLarge: its result has more bytes of JSON than a result may have.
            ActionCanceledError: a plain handler's attempt has lost its lease, or should stop between two tries.
        """
        options = StepOptions(
            on_changed=on_changed,
            at_most_once=at_most_once,
            max_attempts=max_attempts,
            backoff=backoff,
            backoff_max=backoff_max,
        )
        place = caller_place()
        call = StepCall(self._table(), name, key, function, args, kwargs, options, place)
        return self._calls.coroutine(call.run_async, "step", "step", name, place) if is_in_loop() else call.run()

    def sleep(self, seconds: float, name: str = "sleep", *, key: str | int = "", hold: bool = False) -> Any:  # noqa: ANN401
        """Wait for some seconds, days or months, holding nothing; an async handler awaits it.

        The attempt ends here, its handler is unwound (`finally` runs), and its slot is free. The next attempt begins at
        the end of the sleep, from the first line, and finds this call over. So do what must not be repeated in steps,
        and let nothing else of the handler be under way. It survives the end of every process.

        Args:
            seconds: 0 to ten years.
            name: by which later attempts find it; unique among the waits of an attempt, together with `key`.
            key: which of several of the name, as in a loop.
            hold: keep the operation's exclusive resource meanwhile. Otherwise it queues for it again afterwards.

        Raises:
            InvalidStep: the attempt had a wait of that name and key before, or something about it is not valid.
        """
        until = end_of_sleep(seconds, self._table().clock.now())
        return self._wait("sleep", until, name, key, hold=hold, place=caller_place())

    def sleep_until(self, moment: datetime, name: str = "sleep", *, key: str | int = "", hold: bool = False) -> Any:  # noqa: ANN401
        """Wait until a moment, as `sleep` does. One that has passed is over at once.

        Args:
            moment: with a time zone.
            name: see `sleep`.
            key: see `sleep`.
            hold: see `sleep`.

        Raises:
            InvalidStep: as `sleep`.
        """
        return self._wait("sleep_until", checked_moment(moment), name, key, hold=hold, place=caller_place())

    def _wait(self, method: str, until: datetime, name: str, key: str | int, *, hold: bool, place: str) -> Any:  # noqa: ANN401
        call = WaitCall(self._table(), name, key, until, hold=hold, place=place)
        return self._calls.coroutine(call.run_async, method, "wait", name, place) if is_in_loop() else call.run()

    def _table(self) -> StepTable:
        if self._steps is None:
            with _creation:
                self._steps = self._steps or self._make_steps()
        return self._steps

    def wait_for(
        self,
        name: str,
        type_: Any,  # noqa: ANN401 - any type that an input may have
        *,
        timeout: float | None = None,
        approvers: int = 1,
        not_requester: bool = False,
        hold: bool = False,
    ) -> Any:  # noqa: ANN401 - an async handler awaits it, a plain one has the result
        """Wait for a signal, and return what was sent: `approval = await ctx.wait_for("approval", Approval)`.

        In a plain handler it returns the payload itself. If the signal is not there, this ends the attempt: the
        handler's `finally` blocks run, nothing is held, and another attempt begins when the signal has come, which gets
        it at this place. So what comes before belongs into steps (docs/signals.md).

        Args:
            name: of the signal; waited for once in an operation.
            type_: of the payload. A signal that does not fit it is refused.
            timeout: seconds from now after which the wait is over; without it the operation's deadline ends it.
            approvers: how many different callers have to send it. With more than one the result is a list.
            not_requester: True if the caller that requested the operation may not send it.
            hold: keep the operation's exclusive resource meanwhile. Otherwise it queues for it again afterwards.

        Raises:
            WaitTimedOut: it has not come in time. Uncaught, it fails the operation.
            InvalidWait: the attempt waits for the name twice, or something about the wait is not valid.
            AttemptSuspended: it is not there yet. Do not catch it; clean up in `finally`.
        """
        if self._waits is None:
            with _creation:
                self._waits = self._waits or self._make_waits()
        place = caller_place()
        take = partial(
            self._waits.take,
            name,
            type_,
            partial(announced_schema, is_input=True),
            timeout=timeout,
            approvers=approvers,
            not_requester=not_requester,
            hold=hold,
            place=place,
        )
        if is_in_loop():
            make = partial(_taken, take, partial(self._waits.stop_async, name))
            return self._calls.coroutine(make, "wait_for", "wait", name, place)
        self._waits.stop(name)
        return take()

    def attach(
        self, path: str | os.PathLike[str], media_type: str = "application/octet-stream", *, name: str = ""
    ) -> Any:  # noqa: ANN401 - an async handler awaits it, a plain one waits within the call
        """Add a file to the operation: clients find it in the status, and download it from the service.

        An async handler awaits it: `await ctx.attach("proof.pdf", "application/pdf")`. In a plain handler it returns
        once the file is stored. The file may have any size, and may be removed afterwards. One with the name of an
        earlier one replaces that, so a later attempt can add the same files again (docs/payloads.md).

        Args:
            path: of the file, on the machine of the runner.
            media_type: such as `application/pdf`.
            name: by which clients see it; that of the path if it is empty.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no file, or the name or the media type is none.
            FileNotAttached: it can't be stored.
            ActionCanceledError: the attempt has lost its lease, or is over.
        """
        request = file_request(path, media_type, name)
        done = partial(self._attach_file, request)
        if is_in_loop():
            return self._calls.coroutine(partial(future_of, done), "attach", "file", request.name, caller_place())
        return done().result()

    def fetch(self, name: str, path: str | os.PathLike[str]) -> Any:  # noqa: ANN401 - as of `attach`
        """Write a file that the client has uploaded: `await ctx.fetch("scan.tif", folder / "scan.tif")`.

        In a plain handler it returns once the file is there. Its bytes are those that the client has sent, or this
        fails. They do not pass the handler's memory.

        Args:
            name: of one of `uploads`.
            path: where it is to be, on the machine of the runner. An existing file is replaced.

        Raises:
            KeyError: there is no file of this name.
            FileNotFoundError: there is no folder for it.
            FileNotFetched: it can't be had.
            ActionCanceledError: the attempt has lost its lease, or is over.
        """
        done = partial(self._fetch_file, fetch_request(self.uploads, name, path))
        if is_in_loop():
            return self._calls.coroutine(partial(future_of, done), "fetch", "upload", name, caller_place())
        return done().result()

    def check_awaited(self) -> None:
        """Check that all that the handler has called was awaited. The runner calls it when the handler has returned.

        Raises:
            InvalidStep: an `await` is missing.
        """
        self._calls.check()

    def _steps_of_a_test(self) -> StepTable:
        return StepTable(
            (),
            self._keep_step,
            attempt=self.attempt,
            limit=NO_LIMIT,
            should_stop=self._cancel_requested,
            on_wait=self._keep_wait,
        )

    def _keep_wait(self, wait: WaitBegun) -> None:
        """Sleep no time in a unit test."""

    def _keep_step(self, event: StepEvent) -> Future[None]:
        return keep_nothing(event)


_creation: Final = threading.Lock()
"""A handler may come to its first steps in several threads at once."""


async def _taken(take: Callable[[], Any], stop: Callable[[], Awaitable[None]]) -> Any:  # noqa: ANN401 - of the author's type
    await stop()
    return take()


def _as_number(percent: object) -> float:
    """Return any number as a float: an author's percent may come from Decimal, Fraction or numpy."""
    if isinstance(percent, SupportsFloat):  # a text has no `__float__`
        with contextlib.suppress(TypeError, OverflowError):
            return float(percent)
    raise TypeError(f"progress takes a number of percent, not {type(percent).__name__}")
