"""Canceling: what a client wishes, recorded as the event that it becomes. Called by `status_routes.py`.

The guarded append settles every race: if the outcome was recorded first, the wish is refused, and the other way round
the runner finds it before it records anything (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_api.errors import ApiError, journal_error, operation_unreadable
from opstream_journal import ExpectedVersion, Journal, JournalError, JournalUnavailable, VersionConflict
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent, OperationFinished
from opstream_schemas.operation.commands import RequestCancel, decide
from opstream_schemas.operation.fold import evolve, fold, next_event
from opstream_schemas.operation.state import Operation

from .input_validation import decode_input
from .operation_cache import OperationCache
from .status import StatusReader
from .submit import BUDGET, EVENT_SOURCE

_ERROR_PATH: Final = re.compile(r" - at `\$\.?(?P<place>[^`]*)`$")


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optional body of a cancel request."""

    reason: str = ""
    """For the audit trail; cut at 4 KiB."""


def decode_reason(body: bytes) -> str:
    """The reason in the body of a cancel request; empty for an empty one.

    Raises:
        ApiError: `InvalidInput`.
    """
    _, value = decode_input(body)
    try:
        return msgspec.convert(value, CancelBody).reason
    except msgspec.ValidationError as error:
        found = _ERROR_PATH.search(str(error))
        message = f'the body of a cancel request is {{}} or {{"reason": "text"}}: {_ERROR_PATH.sub("", str(error))}'
        raise ApiError(ErrorCode.INVALID_INPUT, message, target=found["place"] if found else "") from error


class Canceler:
    """Records that an operation shall stop.

    Args:
        journal: where to.
        status: how operations are read.
        cache: gets the new state.
        now: the time of events, with its zone.
        clock: monotonic seconds.
        new_id: draws event ids.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        status: StatusReader,
        cache: OperationCache,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._journal = journal
        self._status = status
        self._cache = cache
        self._now = now
        self._clock = clock
        self._new_id = new_id

    async def cancel(self, operation_id: str, *, by: str, reason: str) -> Operation:
        """The operation, canceled if nothing ran, otherwise with the wish recorded. Asking again changes nothing.

        Takes `BUDGET` seconds at most.

        Raises:
            ApiError: `OperationFinished`: it has succeeded or failed; `OperationNotFound`; `JournalUnavailable` and
                `JournalFull`: ask again; `InternalError`: it holds events that this version can't decide upon.
        """
        until = self._clock() + BUDGET
        try:
            async with asyncio.timeout(BUDGET):
                return await self._cancel(operation_id, by, reason, until)
        except TimeoutError:
            raise journal_error(JournalUnavailable("canceling took too long", maybe_stored=True)) from None
        except OperationFinished as finished:
            raise ApiError(ErrorCode.OPERATION_FINISHED, f"{finished}, so there is nothing to cancel") from finished
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
        except JournalError as error:
            raise journal_error(error) from error

    async def _cancel(self, operation_id: str, by: str, reason: str, until: float) -> Operation:
        while True:
            # Status is folded as a reader does; whoever decides must not have passed over anything.
            operation = await self._status.read(operation_id)
            data = decide(fold(operation, ()), RequestCancel(by=by, reason=reason))
            if data is None:
                return operation
            event = next_event(operation, data, id=self._new_id(), source=EVENT_SOURCE, time=self._now())
            expected = ExpectedVersion(operation.stream_sequence)
            try:
                stored = await self._journal.append(operation.kind, event, expected, budget=until - self._clock())
            except VersionConflict:
                continue
            return self._cache.put(evolve(operation, stored))
