"""Erases confidential operations: their keys are destroyed, and a record says who asked for it, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from opstream_api.errors import ApiError, journal_error
from opstream_api.operations.status import StatusReader
from opstream_journal.errors import JournalError
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.metrics.instruments import Counts
from opstream_schemas.errors import ErrorCode
from opstream_schemas.event_types.erasure import REASON_LIMIT, Erasure
from opstream_schemas.text import truncate_text

logger = logging.getLogger(__name__)


class ErasureDesk:
    """Takes requests to erase.

    Args:
        status: reads operations.
        keys: of confidential operations.
        now: returns the time with a time zone.

    Attributes:
        erasures: how many operations this process has erased.
    """

    def __init__(self, status: StatusReader, keys: OperationKeys, *, now: Callable[[], datetime]) -> None:
        self._status = status
        self._keys = keys
        self._now = now
        self.erasures = Counts("opstream_erasures", "Confidential operations that were erased. Sum over processes.")

    async def erase(self, operation_id: str, *, by: str, reason: str) -> Erasure:
        """Erase an operation that has ended. A repeated request changes nothing.

        Args:
            operation_id: the id under which it is stored.
            by: who asks; empty for an unknown caller.
            reason: why.

        Returns:
            The record that is kept: of the first request.

        Raises:
            ApiError: `OperationNotFound`; `NotConfidential`: what it is about is readable in the journal, which deletes
                nothing; `OperationOpen`: it has not ended; `JournalUnavailable`: send the request again.
        """
        operation = await self._status.read(operation_id)
        if not operation.confidential:
            message = (
                f"operation {operation_id} is not confidential, so it can't be erased: the journal deletes nothing, "
                "and has it in the clear. Only what an action with confidential=True was asked for can be erased"
            )
            raise ApiError(ErrorCode.NOT_CONFIDENTIAL, message)
        if not operation.is_terminal:
            message = f"operation {operation_id} is {operation.status}: cancel it, and erase it once it has ended"
            raise ApiError(ErrorCode.OPERATION_OPEN, message)
        asked = Erasure(at=self._now(), by=truncate_text(by), reason=truncate_text(reason, REASON_LIMIT))
        try:
            erasure = await self._keys.erase(operation.kind, operation_id, asked)
        except JournalError as error:
            raise journal_error(error) from error
        if erasure == asked:
            self.erasures.of().value += 1
            logger.info("operation %s of %s was erased", operation_id, operation.kind)
        return erasure
