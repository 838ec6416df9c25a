"""Cancel: a client's request becomes an event of the operation.

The append with an expected version decides every race. If the outcome is in the journal first, the cancel request is
refused; if the cancel request is first, the runner finds it before it can append an outcome (docs/architecture.md).
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
    """For the audit trail; truncated to 4 KiB."""


def decode_reason(body: bytes) -> str:
    """Return the reason in the body of a cancel request; empty without one.

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
    """Appends cancel requests.

    Args:
        journal: the journal.
        status: reads operations.
        cache: gets the new state.
        now: returns the time of events, with a time zone.
        clock: returns monotonic seconds.
        new_id: generates event ids.
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
        """Cancel an operation that has not started; ask one that runs to stop. A repeated request changes nothing.

        Takes at most `BUDGET` seconds.

        Returns:
            The new state.

        Raises:
            ApiError: `OperationFinished`: it has succeeded or failed; `OperationNotFound`; `JournalUnavailable` and
                `JournalFull`: send the request again; `InternalError`: it has events that this version can't fold.
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
