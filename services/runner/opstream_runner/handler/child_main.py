"""The process of one attempt of an isolated action: `python -m opstream_runner.handler.child_main`.

It imports the action's module, calls the handler in its main thread, sends progress and the outcome to the runner, and
ends. It loads no broker code. SIGTERM or SIGINT interrupts the handler. When the runner ends, this process and its
group are killed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import faulthandler
import io
import itertools
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Self

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.action_modules import load_actions
from opstream_runner.authoring.context import COMPLETED, ActionContext
from opstream_runner.authoring.files.attached_file import FileRequest
from opstream_runner.authoring.files.uploaded_file import FetchRequest
from opstream_runner.authoring.progress_throttle import ProgressThrottle
from opstream_runner.containment.author_loop import run_until
from opstream_runner.containment.forks import keep_from_forks, prepare_forks
from opstream_runner.containment.log_guard import protect_logs
from opstream_runner.errors import ActionCanceledError
from opstream_runner.steps.children import ChildrenAsk, ChildrenReply
from opstream_runner.steps.clean_up import CleanUp
from opstream_runner.steps.step_table import StepEvent, StepTable
from opstream_runner.waits.wait_table import WaitTable
from opstream_schemas.events import Trace
from opstream_schemas.logs.json_formatter import JsonLogFormatter
from opstream_schemas.operation.commands import truncate_error
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.text import truncate_text
from opstream_schemas.traces.tracer import NO_TRACING, Tracer

from .child_protocol import (
    ANSWERED_ERRORS,
    FRAME_HEADER,
    Begun,
    ChildMessage,
    ChildrenAsked,
    ChildStart,
    CleaningUp,
    FileAdded,
    FileWanted,
    Reported,
    ResultWanted,
    StepDone,
    StepRecorded,
    decode_start,
    decode_step_recorded,
    encode_frame,
)
from .child_warden import stand_guard
from .invocation import (
    UNEXPECTED_ERROR,
    Awaiting,
    HandlerOutcome,
    Postponed,
    Raised,
    Stopped,
    finish,
    invoke,
    invoke_in_this_thread,
)
from .lifeline import kill_group_with_runner, watch_lifeline

logger = logging.getLogger(__name__)

LOG_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
LOG_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S"
"""Both are those of the `opstream` command: the lines appear between those of the runner."""
_LAST_SPANS_SECONDS: Final = 0.5
"""Seconds to send the spans of the handler, after the outcome. The runner waits for the process a second."""


class RunnerChannel:
    """Sends messages to the runner, and takes its answers to steps.

    A thread writes them, and another one reads once there is a step. A signal interrupts the main thread anywhere, and
    would leave half a message behind.

    Args:
        sock: the connection to the runner.
        operation_id: for the log.
        on_over: called when the runner answers that the attempt is over.
    """

    def __init__(self, sock: socket.socket, operation_id: str, on_over: Callable[[], None]) -> None:
        self._sock = sock
        self._operation_id = operation_id
        self._on_over = on_over
        self._asked: dict[int, concurrent.futures.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader: threading.Thread | None = None
        self._frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="opstream channel", daemon=True)
        self._writer.start()

    def send(self, message: Reported | CleaningUp) -> None:
        """Queue a message; they are sent in order."""
        self._frames.put(encode_frame(message))

    def record_step(self, event: StepEvent) -> concurrent.futures.Future[None]:
        """Send an event of a step. The future is done once the runner says that it is stored (`Recorder`)."""
        data = msgspec.Raw(msgspec.json.encode(event))
        return self._ask(lambda number: StepDone(number, event.type, data))

    def attach_file(self, request: FileRequest) -> concurrent.futures.Future[None]:
        """Send a file that is to be added. The future is done once the runner says that it is."""
        return self._ask(lambda number: FileAdded(number, *request))

    def fetch_file(self, request: FetchRequest) -> concurrent.futures.Future[None]:
        """Ask for an upload. The future is done once the runner says that the file is there."""
        return self._ask(lambda number: FileWanted(number, *request))

    def fetch_result(self, payload: PayloadRef) -> concurrent.futures.Future[bytes]:
        """Ask for a recorded result that is too large for its event (`Fetcher`)."""
        return self._ask(lambda number: ResultWanted(number, payload))

    def ask_about_children(self, ask: ChildrenAsk) -> concurrent.futures.Future[ChildrenReply]:
        """Send a question about children. See `ChildrenAsker`."""
        return self._ask(lambda number: ChildrenAsked(number, ask))

    def _ask(self, make: Callable[[int], ChildMessage]) -> concurrent.futures.Future[Any]:
        asked: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._asked[number := next(self._numbers)] = asked
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="opstream answers", daemon=True)
            self._reader.start()
        self._frames.put(encode_frame(make(number)))
        return asked

    def send_outcome(self, outcome: HandlerOutcome) -> None:
        """Send the outcome, and return once the kernel has it."""
        if isinstance(outcome, Raised | Postponed):
            outcome = msgspec.structs.replace(outcome, error=truncate_error(outcome.error))
        try:
            last = encode_frame(outcome)
        except (msgspec.MsgspecError, ValueError, OverflowError):
            logger.exception("operation %s: its error has no JSON", self._operation_id)
            last = encode_frame(Raised(UNEXPECTED_ERROR, is_meant=False))
        self._frames.put(last)
        self._frames.put(b"")
        self._writer.join()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while frame := _read_frame(self._sock):
                self._take(decode_step_recorded(frame))

    def _take(self, answer: StepRecorded) -> None:
        asked, error = self._asked.pop(answer.number), ANSWERED_ERRORS.get(answer.kind)
        if not asked.set_running_or_notify_cancel():
            return
        if not answer.error and not answer.kind:
            asked.set_result(bytes(answer.data) if isinstance(answer.data, msgspec.Raw) else answer.reply)
        elif error is not None:
            asked.set_exception(error(answer.error))
        else:
            self._on_over()
            asked.set_exception(ActionCanceledError(answer.error))

    def _write(self) -> None:
        # Without a runner there is no receiver, and this process is about to be killed.
        with contextlib.suppress(OSError):
            while data := self._frames.get():
                self._sock.sendall(data)


class HandlerInterrupt:
    """Interrupts the handler at SIGTERM or SIGINT.

    While this context is entered, the first signal interrupts the handler. A signal that came before does so on entry.

    Attributes:
        is_requested: True once a signal came.
        interrupt: interrupts the handler; called in the main thread, at any point of its code.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.interrupt: Callable[[], None] | None = None
        self._is_entered = False

    def note_request(self) -> None:
        """Note that the handler is to stop, without an interrupt: it ends by itself."""
        self.is_requested = True

    def on_signal(self, _number: int, _frame: object) -> None:
        """Handle SIGTERM or SIGINT."""
        self.request()

    def request(self) -> None:
        """Interrupt the handler."""
        self.is_requested = True
        self._interrupt_once()

    def __enter__(self) -> Self:
        self._is_entered = True
        if self.is_requested:
            self._interrupt_once()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_entered = False

    def _interrupt_once(self) -> None:
        if self._is_entered and self.interrupt is not None:
            self._is_entered = False
            self.interrupt()


def main() -> None:
    """Run the attempt that the runner sends. Arguments: the file descriptors of the channel and of the lifeline."""
    channel_fd, lifeline = int(sys.argv[1]), int(sys.argv[2])
    for descriptor in (channel_fd, lifeline):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - positional-only
    stand_guard(channel_fd, lifeline)
    kill_group_with_runner(lifeline)
    with socket.socket(fileno=channel_fd) as sock:
        start = decode_start(_receive_frame(sock))
        threading.Thread(
            target=watch_lifeline, args=(lifeline, os.getppid()), name="opstream lifeline", daemon=True
        ).start()
        _configure_process(start)
        tracing = _start_tracing(start)
        # What the handler forks ends at SIGTERM as usual, and can't write into the channel.
        prepare_forks()
        protect_logs()
        (action,) = (one for one in load_actions([start.module]) if str(one.kind) == start.kind)
        interrupt = HandlerInterrupt()
        # From here on the attempt counts as begun, whatever the handler does to this process.
        sock.sendall(encode_frame(Begun()))
        channel = RunnerChannel(sock, start.operation_id, interrupt.note_request)
        context = _make_context(start, channel, interrupt)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, interrupt.on_signal)
        run = _run_async if action.is_async else _run_plain
        with keep_from_forks(lambda: [channel_fd]), tracing.outer_span(Trace(traceparent=start.traceparent)):
            run(action, start, context, interrupt, channel)
        tracing.close(_LAST_SPANS_SECONDS)


def _receive_frame(sock: socket.socket) -> bytes:
    if not (frame := _read_frame(sock)):
        sys.exit(1)  # the runner ended before it sent the attempt
    return frame


def _read_frame(sock: socket.socket) -> bytes:
    """Return the next frame; empty if the runner has ended."""
    head = sock.recv(FRAME_HEADER.size, socket.MSG_WAITALL)
    if len(head) < FRAME_HEADER.size:
        return b""
    (length,) = FRAME_HEADER.unpack(head)
    return sock.recv(length, socket.MSG_WAITALL)


def _configure_process(start: ChildStart) -> None:
    sys.path[:] = start.path
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if the runner has none
            # Lines that the handler prints must reach the runner's log even if this process is killed.
            stream.reconfigure(line_buffering=True)
    if sys.stderr is not None:
        faulthandler.enable()
    formatter: logging.Formatter = JsonLogFormatter(lambda: "runner")
    if not start.is_log_json:
        formatter = logging.Formatter(LOG_FORMAT, LOG_TIME_FORMAT)
        formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=start.log_level, handlers=[handler])


def _start_tracing(start: ChildStart) -> Tracer:
    """Let spans of the handler be sent, nested in the attempt's."""
    if not start.is_traced:
        return NO_TRACING
    from opstream_schemas.traces.otel import start_tracing

    return start_tracing("opstream-runner", is_child=True, timeout=_LAST_SPANS_SECONDS)


def _make_context(start: ChildStart, channel: RunnerChannel, interrupt: HandlerInterrupt) -> ActionContext:
    throttle = ProgressThrottle(time.monotonic)

    def report(percent: float, message: str) -> Awaitable[None]:
        if throttle.allow(percent):
            channel.send(Reported(percent, truncate_text(message)))
        return COMPLETED

    def cancel() -> None:
        channel.send(CleaningUp())
        interrupt.request()

    record = start.record
    clean_up = None if record is None else CleanUp(record, cancel, lambda: interrupt.is_requested)
    return ActionContext(
        operation_id=start.operation_id,
        resource_id=start.resource_id,
        attempt=start.attempt,
        traceparent=start.traceparent,
        report=report,
        cancel_requested=lambda: interrupt.is_requested,
        attach_file=channel.attach_file,
        uploads=start.uploads,
        fetch_file=channel.fetch_file,
        make_steps=lambda: StepTable(
            start.steps,
            channel.record_step,
            attempt=start.attempt,
            limit=start.limit,
            should_stop=lambda: interrupt.is_requested,
            waits=start.sleeps,
            fetch=channel.fetch_result,
            clean_up=clean_up,
            marks_clean_up=start.marks_clean_up,
            operation_id=start.operation_id,
            ask=channel.ask_about_children,
        ),
        make_waits=lambda: WaitTable(start.closed, is_proven=start.is_proven, clean_up=clean_up),
    )


def _run_plain(
    action: Action[Any, Any],
    start: ChildStart,
    context: ActionContext,
    interrupt: HandlerInterrupt,
    channel: RunnerChannel,
) -> None:
    interrupt.interrupt = context.check_canceled
    outcome = invoke_in_this_thread(action, start.input, context, start.limit, interrupt)
    if isinstance(outcome, Awaiting):
        _run_in_loop(partial(finish, action, outcome, context, start.limit), context, interrupt, channel)
    else:
        channel.send_outcome(outcome)


def _run_async(
    action: Action[Any, Any],
    start: ChildStart,
    context: ActionContext,
    interrupt: HandlerInterrupt,
    channel: RunnerChannel,
) -> None:
    _run_in_loop(partial(invoke, action, start.input, context, start.limit), context, interrupt, channel)


def _run_in_loop(
    make: Callable[[], Coroutine[Any, Any, HandlerOutcome]],
    context: ActionContext,
    interrupt: HandlerInterrupt,
    channel: RunnerChannel,
) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        # Not by the loop, whose policy an author may have set.
        task = asyncio.Task(make(), loop=loop)
        task.add_done_callback(lambda _: loop.stop())

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)

        interrupt.interrupt = cancel
        with interrupt:
            run_until(loop, task.done)
        if task.cancelled():  # before it started, or by itself
            outcome: HandlerOutcome = (
                Stopped() if context.cancel_requested else Raised(UNEXPECTED_ERROR, is_meant=False)
            )
        else:
            outcome = task.result()
        # Sent before the loop closes, because closing waits for tasks that the handler left behind.
        channel.send_outcome(outcome)


if __name__ == "__main__":
    main()
