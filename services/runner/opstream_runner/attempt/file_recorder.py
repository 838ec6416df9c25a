"""Adds files to the operation of an attempt, for a handler in a thread or process: stored first, then recorded."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from pathlib import Path

from opstream_journal import UNTIL_STORED
from opstream_journal.errors import JournalError
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_payloads import PayloadError, Payloads
from opstream_runner.authoring.attached_file import FileRequest
from opstream_runner.errors import ActionCanceledError, FileNotAttached
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent, TooManyFiles
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.operation.commands import AttachFile

from .event_recorder import EventRecorder

_NO_STORE = (
    "this runner has no payload store: run 'opstream provision --update', and 'opstream broker-config' where each role "
    "has a login of its own, and start it again"
)


class FileRecorder:
    """The files of one attempt, on their way into the payload store and the journal.

    Args:
        recorder: the attempt's recorder.
        token: the attempt's token.
        payloads: the store; None if there is none.
        loop: the runner's.
        on_lost: called when the attempt is not the live one any more.
    """

    def __init__(
        self,
        recorder: EventRecorder,
        token: str,
        payloads: Payloads | None,
        loop: asyncio.AbstractEventLoop,
        *,
        on_lost: Callable[[], None],
    ) -> None:
        self._recorder = recorder
        self._token = token
        self._payloads = payloads
        self._on_lost = on_lost
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def attach(self, request: FileRequest) -> concurrent.futures.Future[None]:
        """Add a file; callable from any thread.

        Returns:
            A future that is done once the file and its event are stored. Its exception is `FileNotAttached`, or
            `ActionCanceledError` if the attempt has lost its lease or is over.
        """
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(self._start, request, done)
        except RuntimeError:  # the runner's loop has ended
            done.set_exception(_over())
        return done

    def close(self) -> None:
        """Add nothing any more: the attempt is over."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    def _start(self, request: FileRequest, done: concurrent.futures.Future[None]) -> None:
        if not done.set_running_or_notify_cancel():
            return  # the handler was cancelled meanwhile, which can't be done from here on
        if self._is_closed:
            done.set_exception(_over())
            return
        task = self._loop.create_task(self._store(request))
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = _over() if task.cancelled() else task.exception()
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        task.add_done_callback(end)

    async def _store(self, request: FileRequest) -> None:
        if self._payloads is None:
            raise FileNotAttached(_NO_STORE)
        try:
            payload = await self._payloads.store_payload(
                self._recorder.operation.id, Path(request.path), media_type=request.media_type
            )
            crash_point(CrashPoint.RUNNER_PAYLOAD_STORED)
            file = Attachment(file_name=request.name, media_type=request.media_type, payload=payload)
            command = AttachFile(token=self._token, file=file)
            await self._recorder.record(lambda _: command, UNTIL_STORED)
        except (OSError, PayloadError, JournalError, TooManyFiles) as error:
            raise FileNotAttached(f"{request.name} is not added to the operation: {error}") from error
        except (DecisionRefused, FoldRefused, InvalidEvent) as error:
            self._on_lost()
            raise _over() from error


def _over() -> ActionCanceledError:
    return ActionCanceledError("the attempt is over, or another one owns the operation")
