"""Records the events of an attempt's steps, and reads large results, for a handler in another thread or process.

A result is retried like an outcome: until it is stored, or the attempt has lost its lease. A broker that is away for a
minute must not cost it, since the step would run again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_journal import UNTIL_STORED, EventTooLarge, JournalFull
from opstream_journal.errors import JournalError
from opstream_journal.outage_log import OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_payloads.documents import Documents
from opstream_payloads.errors import PayloadError, StoreUnavailable
from opstream_runner.steps.step_errors import StepNotRecorded, StepResultTooLarge, StepUnreadable
from opstream_runner.steps.step_table import StepEvent
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.events import CleanUpBegun, StepFailed, StepSucceeded
from opstream_schemas.operation.commands import RecordStep
from opstream_schemas.payloads.payload_ref import PayloadRef

from .event_recorder import EventRecorder
from .handler_calls import HandlerCalls, attempt_over

logger = logging.getLogger(__name__)

_OUTAGE_DELAY: Final = 2.0
"""Seconds until a result is tried again for which the journal or the payload store has no room, or which they do not
answer."""
_FAILURE_BUDGET: Final = 2.0
"""Seconds to record that a step failed before that is dropped: it is for people, and decides nothing."""


_STORE_OUTAGE: Final = OutageLog(
    logger, "results of steps wait for the payload store", "results of steps are stored and read again"
)


class StepRecorder:
    """The steps of one attempt, on their way into the journal, and back.

    Args:
        recorder: the attempt's recorder.
        token: the attempt's token.
        documents: keep the results that are too large for an event.
        loop: the runner's, in which events are appended.
        on_lost: called when the attempt is not the live one any more.
        on_unreadable: called when the operation can't be folded.
        count: called with each step that has ended: True if it has failed.
    """

    def __init__(
        self,
        recorder: EventRecorder,
        token: str,
        documents: Documents,
        loop: asyncio.AbstractEventLoop,
        *,
        on_lost: Callable[[], None],
        on_unreadable: Callable[[], None],
        count: Callable[[bool], None],
    ) -> None:
        self._recorder = recorder
        self._token = token
        self._on_lost = on_lost
        self._on_unreadable = on_unreadable
        self._count = count
        self._documents = documents
        self._calls = HandlerCalls(loop)

    def record(self, event: StepEvent) -> concurrent.futures.Future[None]:
        """Record an event; callable from any thread.

        Returns:
            A future that is done once the event is stored. Its exception is one of `StepResultTooLarge`,
            `StepNotRecorded`, and `ActionCanceledError` if the attempt has lost its lease or is over.
        """
        return self._calls.start(lambda: self._store(event))

    def fetch(self, payload: PayloadRef) -> concurrent.futures.Future[bytes]:
        """Read a result from the payload store, and wait for a store that is away; callable from any thread.

        Returns:
            A future with its JSON. Its exception is `StepUnreadable`, or `ActionCanceledError` if the attempt is over.
        """
        return self._calls.start(lambda: self._fetch(payload))

    def close(self) -> None:
        """Record and read nothing any more: the attempt is over."""
        self._calls.close()

    async def _store(self, event: StepEvent) -> None:
        if isinstance(event, StepFailed):
            self._count(True)  # noqa: FBT003 - a callback
            with contextlib.suppress(JournalError, DecisionRefused, FoldRefused, InvalidEvent):
                await self._append(event, _FAILURE_BUDGET)
            return
        has_ended = isinstance(event, StepSucceeded)
        crash_point(CrashPoint.RUNNER_STEP_DONE if has_ended else CrashPoint.RUNNER_STEP_BEGINS)
        while True:
            try:
                event = await self._moved_to_payload(event)
                await self._append(event, UNTIL_STORED)
            except StoreUnavailable as error:
                _STORE_OUTAGE.failed(f"operation {self._recorder.operation.id}: {error}")
                await asyncio.sleep(_OUTAGE_DELAY)
            except JournalFull as error:
                logger.debug("operation %s: a step waits for room: %s", self._recorder.operation.id, error)
                await asyncio.sleep(_OUTAGE_DELAY)
            except EventTooLarge as error:
                raise StepResultTooLarge(str(error)) from error
            except DecisionRefused as error:
                self._on_lost()
                raise attempt_over() from error
            except (FoldRefused, InvalidEvent) as error:
                logger.error("operation %s: a step can't be recorded: %s", self._recorder.operation.id, error)  # noqa: TRY400
                self._on_unreadable()
                raise attempt_over() from error
            except JournalError as error:
                what = "the clean-up" if isinstance(event, CleanUpBegun) else f"step {event.step!r}"
                raise StepNotRecorded(f"{what} can't be recorded: {error}") from error
            else:
                break
        if has_ended:
            self._count(False)  # noqa: FBT003
        crash_point(CrashPoint.RUNNER_STEP_RECORDED)

    async def _moved_to_payload(self, event: StepEvent) -> StepEvent:
        """Store a result that is too large for an event, sealed if it has to be; return the event that names it."""
        if not isinstance(event, StepSucceeded) or not isinstance(event.result, msgspec.Raw):
            return event
        key = self._recorder.key
        result = event.result if key is None else key.seal_json(event.result)
        if self._documents.is_inline(result):
            return event if key is None else msgspec.structs.replace(event, result=result)
        payload = await self._documents.store(self._recorder.operation.id, bytes(result))
        _STORE_OUTAGE.recovered()
        crash_point(CrashPoint.RUNNER_PAYLOAD_STORED)
        return msgspec.structs.replace(event, result=msgspec.UNSET, result_payload=payload)

    async def _fetch(self, payload: PayloadRef) -> bytes:
        while True:
            try:
                found = bytes(await self._documents.read(self._recorder.operation.id, msgspec.UNSET, payload))
            except StoreUnavailable as error:
                _STORE_OUTAGE.failed(f"operation {self._recorder.operation.id}: {error}")
                await asyncio.sleep(_OUTAGE_DELAY)
            except PayloadError as error:
                logger.error("operation %s: %s", self._recorder.operation.id, error)  # noqa: TRY400 - says all
                raise StepUnreadable(f"the recorded result of a step can't be read: {error}") from error
            else:
                _STORE_OUTAGE.recovered()
                return found if self._recorder.key is None else bytes(self._recorder.key.open_json(msgspec.Raw(found)))

    async def _append(self, event: StepEvent, budget: float) -> None:
        command = RecordStep(token=self._token, data=event)
        await self._recorder.record(lambda _: command, budget)
