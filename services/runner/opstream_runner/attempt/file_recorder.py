"""The files of an attempt's operation, for a handler in a thread or process: those that it adds are stored first, then
recorded; those that the client has uploaded are written where the handler wants them."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from pathlib import Path

from opstream_journal import UNTIL_STORED
from opstream_journal.errors import JournalError
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_payloads import PayloadError, Payloads
from opstream_runner.authoring.files.attached_file import FileRequest
from opstream_runner.authoring.files.uploaded_file import FetchRequest
from opstream_runner.errors import FileNotAttached, FileNotFetched
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent, TooManyFiles
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.operation.commands import AttachFile

from .event_recorder import EventRecorder
from .handler_calls import HandlerCalls, attempt_over

_NO_STORE = (
    "this runner has no payload store: run 'opstream provision --update', and 'opstream broker-config' where each role "
    "has a login of its own, and start it again"
)


_NOT_SEALED = (
    "the operation is confidential, and its files would be stored in the clear: return what is in them, or keep them "
    "in a place of your own"
)


class FileRecorder:
    """The files of one attempt, on their way into the payload store and the journal, and the uploads on their way back.

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
        self._calls = HandlerCalls(loop)

    def attach(self, request: FileRequest) -> concurrent.futures.Future[None]:
        """Add a file; callable from any thread.

        Returns:
            A future that is done once the file and its event are stored. Its exception is `FileNotAttached`, or
            `ActionCanceledError` if the attempt has lost its lease or is over.
        """
        return self._calls.start(lambda: self._store(request))

    def fetch(self, request: FetchRequest) -> concurrent.futures.Future[None]:
        """Write an upload into a file; callable from any thread.

        Returns:
            A future that is done once the file has all its bytes. Its exception is `FileNotFetched`, or
            `ActionCanceledError` if the attempt is over.
        """
        return self._calls.start(lambda: self._fetch(request))

    def close(self) -> None:
        """Add nothing any more: the attempt is over."""
        self._calls.close()

    async def _store(self, request: FileRequest) -> None:
        if self._payloads is None:
            raise FileNotAttached(_NO_STORE)
        if self._recorder.key is not None:
            raise FileNotAttached(_NOT_SEALED)
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
            raise attempt_over() from error

    async def _fetch(self, request: FetchRequest) -> None:
        operation = self._recorder.operation
        found = next((one for one in operation.uploads if one.file_name == request.name), None)
        if self._payloads is None or found is None:
            raise FileNotFetched(f"{request.name} can't be had: {_NO_STORE}")
        try:
            await self._payloads.fetch_to(operation.id, found.payload, Path(request.path))
        except (OSError, PayloadError) as error:
            raise FileNotFetched(f"{request.name} can't be had: {error}") from error
