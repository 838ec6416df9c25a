"""A handler that runs in a process of its own; `child_main.py` is what runs in that process.

A warden (`child_warden.py`) is between them. At the end it kills all that the handler has started, so that nothing
outlives the attempt. The runner holds a pipe, the lifeline; to close it ends the warden and all below it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext
from opstream_runner.authoring.files.attached_file import FileRequest, keep_no_file
from opstream_runner.authoring.files.uploaded_file import FetchRequest, find_no_file
from opstream_runner.containment.exceptions import type_name
from opstream_runner.containment.forks import keep_from_forks
from opstream_runner.containment.log_guard import own_formatter
from opstream_runner.steps.children import ChildrenAsker, ChildrenReply
from opstream_runner.steps.clean_up import CanceledRecord
from opstream_runner.steps.step_errors import StepResultTooLarge
from opstream_runner.steps.step_table import Fetcher, Recorder, StepEvent, ask_nobody, fetch_nothing, keep_nothing
from opstream_schemas.events import CleanUpBegun, OperationError, StepFailed, StepStarted, StepSucceeded, WaitBegun
from opstream_schemas.logs.json_formatter import JsonLogFormatter
from opstream_schemas.signals.wait_history import ClosedWait
from opstream_schemas.steps.step_history import StepRecord

from .child_protocol import (
    FRAME_HEADER,
    Begun,
    ChildrenAsked,
    ChildStart,
    CleaningUp,
    FileAdded,
    FileWanted,
    Reported,
    ResultWanted,
    StepDone,
    StepRecorded,
    decode_child_message,
    encode_frame,
)
from .invocation import HandlerOutcome, Postponed, Raised, Returned, Stopped, Suspended

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NO_WAITS: Final[Mapping[str, ClosedWait]] = {}
_EXIT_GRACE: Final = 1.0
"""Seconds that the process has to end after it sent its outcome: the interpreter still runs exit handlers."""
_KILL_TIMEOUT: Final = 5.0
"""Seconds that the warden has to kill everything before it is killed itself; it needs a few milliseconds."""
_READ_TIMEOUT: Final = 0.5
"""Seconds to read what the process sent before it ended."""
_FRAME_OVERHEAD: Final = 65_536
"""Bytes that a frame may have beyond twice the result's limit; base64 makes the result a third longer."""
_NOT_STARTED_CODE: Final = 503
_STEP_EVENTS: Final[dict[str, type[StepEvent]]] = {
    StepStarted.type: StepStarted,
    StepSucceeded.type: StepSucceeded,
    StepFailed.type: StepFailed,
    CleanUpBegun.type: CleanUpBegun,
}
_FOREIGN_SIGTERM_WAIT: Final = 3.0
"""Seconds to wait after a SIGTERM that the runner did not send: a service manager that stops a whole service also
signals the runner, and then the handler did not fail."""


class ChildProcessHandler:
    """A handler in a process of its own.

    Args:
        action: the action to run; `collect_actions` must have found it.
        action_input: JSON.
        context: its values are copied into the context that the handler gets.
        limit: the result's maximum, in bytes of JSON.
        report: called with each progress report that is to be recorded.
        steps: what earlier attempts have recorded of their steps.
        sleeps: the waits for a time, which are over.
        record_step: called with each event of a step.
        fetch_result: called with each recorded result that is wanted, and not in its event.
        closed: the waits for signals that are over.
        is_proven: see `WaitTable`.
        attach_file: called with each file that is to be added.
        ask: called with each question about children.
        fetch_file: called with each upload that is wanted.
        is_traced: whether the context's `traceparent` is that of the attempt's span.
        record: of an attempt after a cancel request.
        on_canceled: called when the handler of such an attempt begins to clean up.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        action_input: msgspec.Raw,
        context: ActionContext,
        limit: int,
        report: Callable[[float, str], object],
        *,
        steps: tuple[StepRecord, ...] = (),
        sleeps: tuple[WaitBegun, ...] = (),
        record_step: Recorder = keep_nothing,
        fetch_result: Fetcher = fetch_nothing,
        closed: Mapping[str, ClosedWait] = _NO_WAITS,
        is_proven: bool = False,
        attach_file: Callable[[FileRequest], concurrent.futures.Future[None]] = keep_no_file,
        ask: ChildrenAsker = ask_nobody,
        fetch_file: Callable[[FetchRequest], concurrent.futures.Future[None]] = find_no_file,
        is_traced: bool = False,
        record: CanceledRecord | None = None,
        on_canceled: Callable[[], None] | None = None,
    ) -> None:
        self._start = ChildStart(
            module=action.module,
            kind=str(action.kind),
            input=action_input,
            operation_id=context.operation_id,
            resource_id=context.resource_id,
            attempt=context.attempt,
            traceparent=context.traceparent,
            limit=limit,
            path=_search_path(),
            log_level=logging.getLogger().level,
            is_log_json=isinstance(own_formatter(), JsonLogFormatter),
            is_traced=is_traced,
            steps=steps,
            sleeps=sleeps,
            closed=dict(closed),
            is_proven=is_proven,
            record=record,
            marks_clean_up=action.spec.policy.clean_up,
            uploads=context.uploads,
        )
        self._on_canceled = on_canceled
        self._record_step = record_step
        self._fetch_result = fetch_result
        self._attach_file = attach_file
        self._ask = ask
        self._fetch_file = fetch_file
        self._lease = action.spec.policy.lease
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = contextlib.ExitStack()
        self._stop_requested = asyncio.Event()
        self._is_sigterm_explained = asyncio.Event()
        self._is_killed = False
        self._has_begun = False
        self._reported_outcome: HandlerOutcome | None = None
        self.outcome: asyncio.Future[HandlerOutcome] = asyncio.create_task(self._run())

    def request_stop(self) -> None:
        """Send SIGTERM, which interrupts the handler."""
        self._is_sigterm_explained.set()
        if not self._stop_requested.is_set():
            self._stop_requested.set()
            if self._process is not None and self._process.returncode is None:
                _signal(os.kill, self._process, signal.SIGTERM)

    def expect_signals(self) -> None:
        """Note that the runner will end soon, which explains a SIGTERM that the runner did not send."""
        self._is_sigterm_explained.set()

    def force_stop(self) -> None:
        """Kill the process and all that it has started."""
        self._is_killed = True
        self._lifeline.close()

    async def _run(self) -> HandlerOutcome:
        try:
            with contextlib.ExitStack() as stack:
                process, channel = await self._spawn(stack)
                reader, writer = await asyncio.open_unix_connection(sock=channel)
                stack.callback(writer.close)
                await self._supervise_process(process, reader, writer)
            return await self._interpret_exit(process.returncode)
        except Exception as error:  # noqa: BLE001 - without an outcome a living runner would lose the attempt
            why = error.strerror if isinstance(error, OSError) and error.strerror else type_name(error)
            return self._not_started(why, error)

    def _not_started(self, why: str, error: Exception | None = None) -> HandlerOutcome:
        """Return the outcome of an attempt whose handler was not called.

        The next one waits for the time of a lease, as if the runner had died: this machine may have no room just now.
        """
        if self._stop_requested.is_set() or self._is_sigterm_explained.is_set():
            return Stopped()
        text = "the process of the action could not be started: " + why
        logger.error("operation %s: %s", self._start.operation_id, text, exc_info=error)
        return Postponed(OperationError(code=_NOT_STARTED_CODE, message=text), self._lease)

    async def _spawn(self, stack: contextlib.ExitStack) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """Start the process. Return it with the runner's end of the channel.

        When the stack closes, so does the lifeline, and the kernel kills the process.
        """
        start = self._start
        with contextlib.ExitStack() as inherited:
            runner_end, child_end = map(inherited.enter_context, socket.socketpair())
            lifeline, lifeline_writer = os.pipe()
            inherited.callback(os.close, lifeline)
            stack.enter_context(self._lifeline).callback(os.close, lifeline_writer)
            # What a plain handler forks in this process must not keep the pipe open.
            self._lifeline.enter_context(keep_from_forks(lambda: [lifeline_writer]))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", f"{__package__}.child_main", str(child_end.fileno()), str(lifeline)),
                *(start.kind, start.operation_id),  # shown in a list of processes
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(child_end.fileno(), lifeline),
                start_new_session=True,
            )
            return process, runner_end.dup()

    async def _supervise_process(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        reading = asyncio.create_task(self._read_messages(reader, writer))
        ended = asyncio.create_task(process.wait())
        try:
            self._process = process
            writer.write(encode_frame(self._start))
            if self._is_killed:
                self._lifeline.close()
            elif self._stop_requested.is_set():
                _signal(os.kill, process, signal.SIGTERM)
            await asyncio.wait([reading, ended], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([ended], timeout=_EXIT_GRACE if self._reported_outcome is not None else None)
        finally:
            self._lifeline.close()
            if not (await asyncio.wait([ended], timeout=_KILL_TIMEOUT))[0]:
                _signal(os.killpg, process, signal.SIGKILL)
                await asyncio.wait([ended])
            await asyncio.wait([reading], timeout=_READ_TIMEOUT)
            reading.cancel()

    async def _read_messages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self._reported_outcome is None:
                (length,) = FRAME_HEADER.unpack(await reader.readexactly(FRAME_HEADER.size))
                if length > 2 * self._start.limit + _FRAME_OVERHEAD:
                    raise msgspec.DecodeError(f"a message of {length} bytes")
                match decode_child_message(await reader.readexactly(length)):
                    case Begun():
                        self._has_begun = True
                    case CleaningUp():
                        if self._on_canceled is not None:
                            self._on_canceled()
                    case Reported(percent, message):
                        self._report(percent, message)
                    case StepDone() as done:
                        self._start_recording_step(done, writer)
                    case ResultWanted(number, payload):
                        self._answer_once_done(self._fetch_result(payload), number, writer)
                    case FileWanted(number, name, path):
                        self._answer_once_done(self._fetch_file(FetchRequest(name, path)), number, writer)
                    case FileAdded() as added:
                        request = FileRequest(added.path, added.name, added.media_type)
                        self._answer_once_done(self._attach_file(request), added.number, writer)
                    case ChildrenAsked(number, ask):
                        self._answer_once_done(self._ask(ask), number, writer)
                    case Returned() | Raised() | Postponed() | Stopped() | Suspended() as outcome:
                        self._reported_outcome = outcome
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except msgspec.MsgspecError as error:
            # The handler wrote into the channel. The rest can't be read, so the outcome would be lost.
            logger.error("operation %s: its process sent an invalid message: %s", self._start.operation_id, error)  # noqa: TRY400
            self._lifeline.close()

    def _start_recording_step(self, done: StepDone, writer: asyncio.StreamWriter) -> None:
        type_ = _STEP_EVENTS.get(done.event)
        if type_ is None:
            raise msgspec.DecodeError(f"a step of type {done.event!r}")
        self._answer_once_done(self._record_step(msgspec.json.decode(done.data, type=type_)), done.number, writer)

    def _answer_once_done(
        self, recorded: concurrent.futures.Future[T], number: int, writer: asyncio.StreamWriter
    ) -> None:
        def answer(recorded: concurrent.futures.Future[T]) -> None:
            error = recorded.exception()
            kind, why = ("", "") if error is None else (type(error).__name__, str(error) or "it is over")
            if isinstance(error, StepResultTooLarge):
                why = str(error.message)
            found = recorded.result() if error is None else None
            data = msgspec.Raw(found) if isinstance(found, bytes) else msgspec.UNSET
            reply = found if isinstance(found, ChildrenReply) else None
            if not writer.is_closing():
                writer.write(encode_frame(StepRecorded(number, why, kind, data, reply)))

        recorded.add_done_callback(answer)

    async def _interpret_exit(self, code: int | None) -> HandlerOutcome:
        reported = self._reported_outcome
        if reported is None and self._is_killed and code == -signal.SIGKILL:
            return Stopped()
        if isinstance(reported, Stopped) or (reported is None and code == -signal.SIGTERM):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FOREIGN_SIGTERM_WAIT):
                    await self._is_sigterm_explained.wait()
            if self._is_sigterm_explained.is_set():
                return Stopped()
            code = -signal.SIGTERM
        elif reported is not None:
            return reported
        how = f"by signal {-code} ({_signal_name(-code)})" if code is not None and code < 0 else f"with status {code}"
        if not self._has_begun:
            return self._not_started(f"it ended {how} before it began; the runner's log may say why")
        logger.error("operation %s: the process of %s ended %s", self._start.operation_id, self._start.kind, how)
        return Raised(OperationError(code=500, message=f"the process of the action ended {how}"), is_meant=False)


def _search_path() -> list[str]:
    """Return what the import system can use of `sys.path`, to which an author may have added anything."""
    found = []
    for entry in tuple(sys.path):
        with contextlib.suppress(Exception):  # not a path, or not one that JSON can hold
            path = os.fsdecode(entry)
            path.encode()
            found.append(str.__str__(path))
    return found


def _signal(send: Callable[[int, int], None], process: asyncio.subprocess.Process, number: int) -> None:
    # macOS reports EPERM for a group that has only a zombie left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
