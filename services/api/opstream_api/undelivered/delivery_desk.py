"""Webhook deliveries that failed and never succeeded: which there are, and to have one made again."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from opstream_api.access.denials.access_recorder import AccessRecorder
from opstream_api.errors import ApiError, journal_error
from opstream_journal import JournalUnavailable
from opstream_journal.stores.webhook_deliveries import DeliveryRecords
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.names import check_name, check_operation_id
from opstream_schemas.webhook_delivery import DeliveryAttempt, RedeliveryOutcome

from .administrator import Administrator

PAGE_SIZE: Final = 200
"""Deliveries with which a page is complete, and records of attempts that are looked at together."""
MAX_LOOKS: Final = 25
"""Most records are of attempts that others followed. So one request looks at 5,000, and leaves the rest to the next."""


class UndeliveredItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The last attempt of a delivery that never succeeded, as a client reads it."""

    operation_id: str
    """By which the client knows it."""
    action: str
    event: str
    endpoint: str
    url: str = ""
    attempt: int
    at: datetime
    outcome: str
    status: int = 0
    error: str = ""
    next_at: datetime | None = None


class UndeliveredItems(NamedTuple):
    """A page."""

    items: list[UndeliveredItem]
    next_sequence: int
    """Where the next page begins; 0 at the end."""


class DeliveryDesk:
    """One process's.

    Args:
        records: of the attempts, started.
        recorder: gets each act; None for no record.
    """

    def __init__(self, records: DeliveryRecords, recorder: AccessRecorder | None) -> None:
        self._records = records
        self._recorder = recorder

    async def undelivered(self, asker: Administrator, first: int) -> UndeliveredItems:
        """Return a page of what was not delivered, in the order of the last attempts.

        Args:
            asker: who asks; it sees the operations of its tenant.
            first: where the page begins; 1 for the first page.

        Raises:
            ApiError: `Forbidden`; as `Administrator.find_stored`.
            JournalError: the broker did not answer, or refused.
        """
        asker.check("see what was not delivered")
        shown: list[UndeliveredItem] = []
        for _ in range(MAX_LOOKS):
            page = await self._records.undelivered(first, PAGE_SIZE)
            found = await asyncio.gather(*(asker.find_stored(one.operation_id) for one in page.attempts))
            shown += [
                _shown(attempt, operation.own_id)
                for attempt, operation in zip(page.attempts, found, strict=True)
                if operation is not None
            ]
            first = page.next_sequence
            if not first or len(shown) >= PAGE_SIZE:
                break
        return UndeliveredItems(shown, first)

    async def redeliver(self, asker: Administrator, operation_id: str, endpoint: str) -> None:
        """Have a delivery made again now, with as many attempts as a new one.

        Args:
            asker: who asks.
            operation_id: by which it knows the operation.
            endpoint: name of a configured endpoint, or `callback`.

        Raises:
            ApiError: `Forbidden`; `OperationNotFound`; `DeliveryNotFound`: no attempt of it has failed, or one
                succeeded, or its events have expired; `ServiceNotRunning`; `JournalUnavailable`.
            JournalError: the broker did not answer, or refused.
        """
        asker.check("send deliveries again")
        try:
            check_operation_id(operation_id)
            check_name(endpoint, "endpoint")
        except InvalidName:
            raise _not_found(operation_id, endpoint) from None
        stored_id = (await asker.find(operation_id)).stored_id
        if not await self._records.is_undelivered(stored_id, endpoint):
            raise _not_found(operation_id, endpoint)
        answer = await self._records.ask_again(stored_id, endpoint)
        if answer is None:
            message = "no webhooks service runs that can send it: start 'opstream webhooks' (or 'opstream hub')"
            raise ApiError(ErrorCode.SERVICE_NOT_RUNNING, message)
        if answer.outcome == RedeliveryOutcome.UNAVAILABLE:
            raise journal_error(JournalUnavailable(answer.detail, maybe_stored=True))
        if answer.outcome == RedeliveryOutcome.EXPIRED:
            message = f"the delivery of {operation_id} to {endpoint} can't be made again: {answer.detail}"
            raise ApiError(ErrorCode.DELIVERY_NOT_FOUND, message)
        if answer.outcome != RedeliveryOutcome.SENT:
            raise _not_found(operation_id, endpoint)
        if asker.principal is not None and self._recorder is not None:
            self._recorder.note_act(AdminAct.REDELIVERED, asker.principal, stored_id)


def _shown(attempt: DeliveryAttempt, own_id: str) -> UndeliveredItem:
    return UndeliveredItem(
        operation_id=own_id,
        action=attempt.action,
        event=attempt.event,
        endpoint=attempt.endpoint,
        url=attempt.url,
        attempt=attempt.attempt,
        at=attempt.at,
        outcome=attempt.outcome,
        status=attempt.status,
        error=attempt.error,
        next_at=attempt.next_at,
    )


def _not_found(operation_id: str, endpoint: str) -> ApiError:
    message = f"no delivery of {operation_id[:80]!r} to {endpoint[:80]!r} has failed, or it was made since"
    return ApiError(ErrorCode.DELIVERY_NOT_FOUND, message)
