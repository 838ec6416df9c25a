"""Cancel: a client's request becomes an event of the operation.

The append with an expected version decides every race. If the outcome is in the journal first, the cancel request is
refused; if the cancel request is first, the runner finds it before it can append an outcome (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_api.errors import ApiError, journal_error, operation_unreadable
from opstream_api.inputs.input_validation import decode_input
from opstream_journal import Journal, JournalError, JournalUnavailable
from opstream_journal.command_handler import CommandHandler, Proposal
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent, OperationFinished
from opstream_schemas.operation.commands import RequestCancel
from opstream_schemas.operation.failure_line import canceled_line, end_fields
from opstream_schemas.operation.fold import evolve, fold
from opstream_schemas.operation.state import Operation

from .operation_cache import OperationCache
from .status import StatusReader
from .submit import BUDGET, EVENT_SOURCE

logger = logging.getLogger(__name__)

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
        keys: of confidential operations.
        now: returns the time of events, with a time zone.
        clock: returns monotonic seconds.
        new_id: generates event ids.
    """

    def __init__(
        self,
        journal: Journal,
        status: StatusReader,
        cache: OperationCache,
        keys: OperationKeys,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._status = status
        self._cache = cache
        self._keys = keys
        self._commands = CommandHandler(journal=journal, source=EVENT_SOURCE, now=now, monotonic=clock, new_id=new_id)

    async def cancel(self, operation_id: str, *, by: str, reason: str) -> Operation:
        """Cancel an operation that has not started; ask one that runs to stop. A repeated request changes nothing.

        Takes at most `BUDGET` seconds.

        Returns:
            The new state.

        Raises:
            ApiError: `OperationFinished`: it has succeeded or failed; `OperationNotFound`; `JournalUnavailable` and
                `JournalFull`: send the request again; `InternalError`: it has events that this version can't fold.
        """
        try:
            async with asyncio.timeout(BUDGET):
                return await self._cancel(operation_id, RequestCancel(by=by, reason=reason))
        except TimeoutError:
            raise journal_error(JournalUnavailable("canceling took too long", maybe_stored=True)) from None
        except OperationFinished as finished:
            raise ApiError(ErrorCode.OPERATION_FINISHED, f"{finished}, so there is nothing to cancel") from finished
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
        except JournalError as error:
            raise journal_error(error) from error

    async def _cancel(self, operation_id: str, command: RequestCancel) -> Operation:
        operation: Operation | None = None

        async def propose() -> Proposal | None:
            nonlocal operation
            operation = await self._status.read(operation_id)
            # A status is folded leniently, for readers. A decision must not pass over any event.
            state = fold(operation, ())
            if state is None:
                return None
            needs_key = state.confidential and command.reason and not state.is_terminal
            key = await self._keys.find(state.kind, state.id) if needs_key else None
            return self._commands.propose(state, command, key=key)

        stored = await self._commands.record(propose, budget=BUDGET)
        if operation is None:
            raise RuntimeError("a status is an operation, or an error")
        if stored is None:
            return operation
        operation = evolve(operation, stored)
        if operation.is_terminal:  # otherwise the runner stops it, and logs its end
            logger.info("%s", canceled_line(operation), extra=end_fields(operation))
        return self._cache.put(operation)
