"""A handler at work in a process of its own. Caller: `attempt.py`; what runs in there is `child.py`.

The process leads a session and group of its own. At the end the whole group is killed, so that nothing that the handler
has started outlives its attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext
from opstream_runner.errors import HandlerNotStarted
from opstream_schemas.events import OperationError

from .child_protocol import FRAME_HEADER, Begun, ChildStart, Reported, decode_child_message, encode_frame
from .invocation import HandlerOutcome, Postponed, Raised, Returned, Stopped

logger = logging.getLogger(__name__)

_EXIT_GRACE: Final = 1.0
"""Seconds for a process to end after its outcome: interpreters run what modules left to do at exit."""
_READ_TIMEOUT: Final = 0.5
"""Seconds to read what a process had said before it ended."""
_FRAME_OVERHEAD: Final = 65_536
"""Bytes of a message beyond the result in it, which takes a third more as base64."""
_EXPLANATION: Final = 3.0
"""Seconds within which a SIGTERM of somebody else's becomes clear: who stops a whole service tells its runner too."""


class ChildProcessHandler:
    """A handler in a process of its own.

    Args:
        action: what to run; `collect` has found it.
        action_input: JSON.
        context: what the handler's own context will say.
        limit: bytes of JSON that the result may have.
        report: told each progress that is worth an event.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        action_input: msgspec.Raw,
        context: ActionContext,
        limit: int,
        report: Callable[[float, str], object],
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
            path=sys.path,
            log_level=logging.getLogger().level,
            runner=os.getpid(),
        )
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._asked = asyncio.Event()
        self._explained = asyncio.Event()
        self._is_killed = False
        self._has_begun = False
        self._said: HandlerOutcome | None = None
        self.outcome: asyncio.Task[HandlerOutcome] = asyncio.create_task(self._run())

    def request_stop(self) -> None:
        """SIGTERM, which interrupts the handler."""
        self._explained.set()
        if not self._asked.is_set():
            self._asked.set()
            if self._process is not None and self._process.returncode is None:
                _signal(os.kill, self._process, signal.SIGTERM)

    def expect_signals(self) -> None:
        """The runner is about to end, and so a SIGTERM of somebody else's is explained."""
        self._explained.set()

    def force_stop(self) -> None:
        """SIGKILL."""
        self._is_killed = True
        if self._process is not None and self._process.returncode is None:
            _signal(os.killpg, self._process, signal.SIGKILL)

    async def _run(self) -> HandlerOutcome:
        with contextlib.ExitStack() as stack:
            try:
                process, channel = await self._spawn(stack)
                reader, writer = await asyncio.open_unix_connection(sock=channel)
            except OSError as error:
                raise HandlerNotStarted(f"no process for operation {self._start.operation_id}: {error}") from error
            stack.callback(writer.close)
            await self._supervise_process(process, reader, writer)
        return await self._interpret_exit(process.returncode)

    async def _spawn(self, stack: contextlib.ExitStack) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """Start the process; also our end of the channel. The stack closes the lifeline at its end, and so kills it."""
        start = self._start
        with contextlib.ExitStack() as handed_over:
            ours, theirs = map(handed_over.enter_context, socket.socketpair())
            lifeline, held = os.pipe()
            handed_over.callback(os.close, lifeline)
            stack.callback(os.close, held)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", f"{__package__}.child", str(theirs.fileno()), str(lifeline)),
                *(start.kind, start.operation_id),  # for whoever looks at a list of processes
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                start_new_session=True,
            )
            return process, ours.dup()

    async def _supervise_process(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        listening = asyncio.create_task(self._read_messages(reader))
        ended = asyncio.create_task(process.wait())
        try:
            self._process = process
            writer.write(encode_frame(self._start))
            if self._is_killed:
                self.force_stop()
            elif self._asked.is_set():
                _signal(os.kill, process, signal.SIGTERM)
            await asyncio.wait([listening, ended], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([ended], timeout=_EXIT_GRACE if self._said is not None else None)
        finally:
            _signal(os.killpg, process, signal.SIGKILL)
            await asyncio.wait([ended])
            await asyncio.wait([listening], timeout=_READ_TIMEOUT)
            listening.cancel()

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        try:
            while self._said is None:
                (length,) = FRAME_HEADER.unpack(await reader.readexactly(FRAME_HEADER.size))
                if length > 2 * self._start.limit + _FRAME_OVERHEAD:
                    raise msgspec.DecodeError(f"a message of {length} bytes")
                match decode_child_message(await reader.readexactly(length)):
                    case Begun():
                        self._has_begun = True
                    case Reported(percent, message):
                        self._report(percent, message)
                    case Returned() | Raised() | Postponed() | Stopped() as outcome:
                        self._said = outcome
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except msgspec.MsgspecError as error:
            # Its handler wrote into the channel: what comes after that is lost, and nothing could tell how it ends.
            logger.error("operation %s: its process talks nonsense: %s", self._start.operation_id, error)  # noqa: TRY400
            if self._process is not None:
                _signal(os.killpg, self._process, signal.SIGKILL)

    async def _interpret_exit(self, code: int | None) -> HandlerOutcome:
        said = self._said
        if said is None and self._is_killed and code == -signal.SIGKILL:
            return Stopped()
        if isinstance(said, Stopped) or (said is None and code == -signal.SIGTERM):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXPLANATION):
                    await self._explained.wait()
            if self._explained.is_set():
                return Stopped()
            code = -signal.SIGTERM
        elif said is not None:
            return said
        how = f"by signal {-code} ({_signal_name(-code)})" if code is not None and code < 0 else f"with status {code}"
        if not self._has_begun:
            if self._explained.is_set():
                return Stopped()
            raise HandlerNotStarted(f"the process of operation {self._start.operation_id} ended {how} before it began")
        logger.error("operation %s: the process of %s ended %s", self._start.operation_id, self._start.kind, how)
        return Raised(OperationError(code=500, message=f"the process of the action ended {how}"), is_meant=False)


def _signal(send: Callable[[int, int], None], process: asyncio.subprocess.Process, number: int) -> None:
    # macOS says EPERM of a group in which only a zombie is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
