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

from opstream_runner.authoring.action import Action, collect
from opstream_runner.authoring.context import DONE, ActionContext
from opstream_schemas.operation.commands import cut_error
from opstream_schemas.text import cut_text

from .child_protocol import HEADER, Begun, Reported, Start, decode_start, frame
from .invocation import UNEXPECTED, Outcome, Postponed, Raised, Stopped, execute, execute_here
from .progress_throttle import Throttle

logger = logging.getLogger(__name__)

LOG_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
LOG_TIME: Final = "%Y-%m-%dT%H:%M:%S"
"""Both as the `opstream` command has them: the lines land between those of the runner."""
_LOOK: Final = 1_000
"""Milliseconds between looks at who the parent is."""


class Channel:
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

    def tell(self, message: Reported) -> None:
        """Tell it soon, in order."""
        self._frames.put(frame(message))

    def end(self, outcome: Outcome) -> None:
        """Tell how it ended; back once that is on its way."""
        if isinstance(outcome, Raised | Postponed):
            outcome = msgspec.structs.replace(outcome, error=cut_error(outcome.error))
        try:
            last = frame(outcome)
        except (msgspec.MsgspecError, ValueError, OverflowError):
            logger.exception("operation %s: its failure has no JSON", self._operation_id)
            last = frame(Raised(UNEXPECTED, is_meant=False))
        self._frames.put(last)
        self._frames.put(b"")
        self._writer.join()

    def _write(self) -> None:
        # Without a runner nobody is left to tell, and this process is about to be killed.
        with contextlib.suppress(OSError):
            while data := self._frames.get():
                self._sock.sendall(data)


class Interrupt:
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
        self._fire()

    def __enter__(self) -> Self:
        self._is_entered = True
        if self.is_requested:
            self._fire()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_entered = False

    def _fire(self) -> None:
        if self._is_entered and self.interrupt is not None:
            self._is_entered = False
            self.interrupt()


def main() -> None:
    """Run the attempt that the runner names. Arguments: the descriptors of the channel and of the lifeline."""
    channel_fd, lifeline = int(sys.argv[1]), int(sys.argv[2])
    for descriptor in (channel_fd, lifeline):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no names
    die_with_group(lifeline)
    with socket.socket(fileno=channel_fd) as sock:
        start = decode_start(_receive(sock))
        threading.Thread(target=_watch, args=(lifeline, start.runner), name="opstream lifeline", daemon=True).start()
        _set_up(start)
        (action,) = (one for one in collect([importlib.import_module(start.module)]) if str(one.kind) == start.kind)
        interrupt = Interrupt()
        sock.sendall(frame(Begun()))  # whatever the handler does to this process from here on, it did begin
        channel = Channel(sock, start.operation_id)
        context = _context(start, channel, interrupt)
        signal.signal(signal.SIGTERM, interrupt.on_signal)
        # What a handler forks, a pool of workers for one, ends by SIGTERM as usual.
        os.register_at_fork(after_in_child=_heed_sigterm)
        run = _run_async if action.is_async else _run_plain
        run(action, start, context, interrupt, channel)


def die_with_group(lifeline: int) -> None:
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
    while not poll.poll(_LOOK) and os.getppid() == runner:
        pass
    os.killpg(0, signal.SIGKILL)


def _heed_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _receive(sock: socket.socket) -> bytes:
    head = sock.recv(HEADER.size, socket.MSG_WAITALL)
    if len(head) < HEADER.size:
        sys.exit(1)  # the runner is gone; nobody is there to run anything for
    (length,) = HEADER.unpack(head)
    return sock.recv(length, socket.MSG_WAITALL)


def _set_up(start: Start) -> None:
    sys.path[:] = start.path
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the runner has none
            # What is printed must be in the runner's log also when this process is killed.
            stream.reconfigure(line_buffering=True)
    if sys.stderr is not None:
        faulthandler.enable()
    formatter = logging.Formatter(LOG_FORMAT, LOG_TIME)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=start.log_level, handlers=[handler])


def _context(start: Start, channel: Channel, interrupt: Interrupt) -> ActionContext:
    throttle = Throttle(time.monotonic)

    def report(percent: float, message: str) -> Awaitable[None]:
        if throttle.passes(percent):
            channel.tell(Reported(percent, cut_text(message)))
        return DONE

    return ActionContext(
        operation_id=start.operation_id,
        resource_id=start.resource_id,
        attempt=start.attempt,
        traceparent=start.traceparent,
        report=report,
        cancel_requested=lambda: interrupt.is_requested,
    )


def _run_plain(
    action: Action[Any, Any], start: Start, context: ActionContext, interrupt: Interrupt, channel: Channel
) -> None:
    interrupt.interrupt = context.check_canceled
    channel.end(execute_here(action, start.input, context, start.limit, interrupt))


def _run_async(
    action: Action[Any, Any], start: Start, context: ActionContext, interrupt: Interrupt, channel: Channel
) -> None:
    async def attempt() -> Outcome:
        task = asyncio.create_task(execute(action, start.input, context, start.limit))
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)

        interrupt.interrupt = cancel
        with interrupt:
            await asyncio.wait([task])
        if task.cancelled():  # before it began
            return Stopped() if context.cancel_requested else Raised(UNEXPECTED, is_meant=False)
        return task.result()

    with asyncio.Runner() as runner:
        # Told before the loop is closed: that waits for what the handler left behind in it.
        channel.end(runner.run(attempt()))


if __name__ == "__main__":
    main()
