"""The process of one attempt of an isolated action: `python -m opstream_runner.handler.child_main`.

It imports the action's module, calls the handler in its main thread, tells progress and the outcome, and ends. It loads
no broker code. SIGTERM interrupts the handler; the end of the runner kills this process and all of its group.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import importlib
import io
import logging
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import msgspec

from opstream_runner.authoring.action import Action, collect_actions
from opstream_runner.authoring.context import COMPLETED, ActionContext
from opstream_schemas.operation.commands import truncate_error
from opstream_schemas.text import truncate_text

from .child_protocol import FRAME_HEADER, Begun, ChildStart, Reported, decode_start, encode_frame
from .invocation import UNEXPECTED_ERROR, HandlerOutcome, Postponed, Raised, Stopped, invoke, invoke_in_this_thread
from .progress_throttle import ProgressThrottle

logger = logging.getLogger(__name__)

LOG_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
LOG_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S"
"""Both as the `opstream` command has them: the lines land between those of the runner."""
_PARENT_POLL_MS: Final = 1_000
"""Milliseconds between looks at who the parent is."""


class RunnerChannel:
    """What this process tells the runner.

    A thread writes: a signal interrupts the main thread anywhere, and half a message would be the last.

    Args:
        sock: the channel.
        operation_id: for the log.
    """

    def __init__(self, sock: socket.socket, operation_id: str) -> None:
        self._sock = sock
        self._operation_id = operation_id
        self._frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="opstream channel", daemon=True)
        self._writer.start()

    def send_progress(self, message: Reported) -> None:
        """Tell it soon, in order."""
        self._frames.put(encode_frame(message))

    def send_outcome(self, outcome: HandlerOutcome) -> None:
        """Tell how it ended; back once that is on its way."""
        if isinstance(outcome, Raised | Postponed):
            outcome = msgspec.structs.replace(outcome, error=truncate_error(outcome.error))
        try:
            last = encode_frame(outcome)
        except (msgspec.MsgspecError, ValueError, OverflowError):
            logger.exception("operation %s: its failure has no JSON", self._operation_id)
            last = encode_frame(Raised(UNEXPECTED_ERROR, is_meant=False))
        self._frames.put(last)
        self._frames.put(b"")
        self._writer.join()

    def _write(self) -> None:
        # Without a runner nobody is left to tell, and this process is about to be killed.
        with contextlib.suppress(OSError):
            while data := self._frames.get():
                self._sock.sendall(data)


class HandlerInterrupt:
    """What SIGTERM does: it is noted for good, and while this is entered the handler is interrupted, once.

    A signal that came before makes it so at once.

    Attributes:
        is_requested: whether a signal came.
        interrupt: called in the main thread, in the middle of whatever it does.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.interrupt: Callable[[], None] | None = None
        self._is_entered = False

    def on_signal(self, _number: int, _frame: object) -> None:
        """The signal handler."""
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
    """Run the attempt that the runner names. Arguments: the descriptors of the channel and of the lifeline."""
    channel_fd, lifeline = int(sys.argv[1]), int(sys.argv[2])
    for descriptor in (channel_fd, lifeline):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no names
    kill_group_with_runner(lifeline)
    with socket.socket(fileno=channel_fd) as sock:
        start = decode_start(_receive_frame(sock))
        threading.Thread(target=_watch, args=(lifeline, start.runner), name="opstream lifeline", daemon=True).start()
        _configure_process(start)
        (action,) = (
            one for one in collect_actions([importlib.import_module(start.module)]) if str(one.kind) == start.kind
        )
        interrupt = HandlerInterrupt()
        sock.sendall(encode_frame(Begun()))  # whatever the handler does to this process from here on, it did begin
        channel = RunnerChannel(sock, start.operation_id)
        context = _make_context(start, channel, interrupt)
        signal.signal(signal.SIGTERM, interrupt.on_signal)
        # What a handler forks, a pool of workers for one, ends by SIGTERM as usual.
        os.register_at_fork(after_in_child=_restore_sigterm)
        run = _run_async if action.is_async else _run_plain
        run(action, start, context, interrupt, channel)


def kill_group_with_runner(lifeline: int) -> None:
    """Let the kernel kill this process and its group once nobody holds the other end of a pipe any more.

    Linux signals the owner of a descriptor when something happens to it, and the only thing that can happen to this
    one is that the runner is gone. It works also while a handler holds the interpreter's lock for minutes, and for
    what the handler has started; PR_SET_PDEATHSIG would reach this one process only, and kill it before it could pass
    that on. Elsewhere, and where a sandbox refuses it, the thread that watches the pipe has to be enough.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _watch(lifeline: int, runner: int) -> None:
    # A process that the runner forked without exec may hold the pipe open: hence the look at the parent.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    while not poll.poll(_PARENT_POLL_MS) and os.getppid() == runner:
        pass
    os.killpg(0, signal.SIGKILL)


def _restore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _receive_frame(sock: socket.socket) -> bytes:
    head = sock.recv(FRAME_HEADER.size, socket.MSG_WAITALL)
    if len(head) < FRAME_HEADER.size:
        sys.exit(1)  # the runner is gone; nobody is there to run anything for
    (length,) = FRAME_HEADER.unpack(head)
    return sock.recv(length, socket.MSG_WAITALL)


def _configure_process(start: ChildStart) -> None:
    sys.path[:] = start.path
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the runner has none
            # What is printed must be in the runner's log also when this process is killed.
            stream.reconfigure(line_buffering=True)
    if sys.stderr is not None:
        faulthandler.enable()
    formatter = logging.Formatter(LOG_FORMAT, LOG_TIME_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=start.log_level, handlers=[handler])


def _make_context(start: ChildStart, channel: RunnerChannel, interrupt: HandlerInterrupt) -> ActionContext:
    throttle = ProgressThrottle(time.monotonic)

    def report(percent: float, message: str) -> Awaitable[None]:
        if throttle.allow(percent):
            channel.send_progress(Reported(percent, truncate_text(message)))
        return COMPLETED

    return ActionContext(
        operation_id=start.operation_id,
        resource_id=start.resource_id,
        attempt=start.attempt,
        traceparent=start.traceparent,
        report=report,
        cancel_requested=lambda: interrupt.is_requested,
    )


def _run_plain(
    action: Action[Any, Any],
    start: ChildStart,
    context: ActionContext,
    interrupt: HandlerInterrupt,
    channel: RunnerChannel,
) -> None:
    interrupt.interrupt = context.check_canceled
    channel.send_outcome(invoke_in_this_thread(action, start.input, context, start.limit, interrupt))


def _run_async(
    action: Action[Any, Any],
    start: ChildStart,
    context: ActionContext,
    interrupt: HandlerInterrupt,
    channel: RunnerChannel,
) -> None:
    async def attempt() -> HandlerOutcome:
        task = asyncio.create_task(invoke(action, start.input, context, start.limit))
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)

        interrupt.interrupt = cancel
        with interrupt:
            await asyncio.wait([task])
        if task.cancelled():  # before it began
            return Stopped() if context.cancel_requested else Raised(UNEXPECTED_ERROR, is_meant=False)
        return task.result()

    with asyncio.Runner() as runner:
        # Told before the loop is closed: that waits for what the handler left behind in it.
        channel.send_outcome(runner.run(attempt()))


if __name__ == "__main__":
    main()
