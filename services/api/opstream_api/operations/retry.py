"""Retry: an operation that did not succeed is done again, as a new one that follows up on it (docs/adr/0063).

The id of the follow-up follows from that of the operation, and it is submitted as a client would submit it. So whether
there is one is read, and stored nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_api.access.operation_access import OperationIds, admit
from opstream_api.access.principal import Principal
from opstream_api.errors import ApiError, journal_error, operation_unreadable, payload_error
from opstream_api.http.caller_identity import Caller
from opstream_api.http.submit_request import OPERATION_ID, IdempotencyKey, SubmitRequest
from opstream_api.inputs.input_validation import decode_input
from opstream_journal import Journal, JournalError
from opstream_journal.errors import OperationErased
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_payloads.documents import Documents
from opstream_payloads.errors import PayloadError
from opstream_schemas.errors import ErrorCode, SealBroken
from opstream_schemas.events import Requested, Trace
from opstream_schemas.operation.follow_up import RETRIABLE, follow_up_id, why_not_retriable
from opstream_schemas.operation.state import Operation

from .status import StatusReader
from .submit import Accepted, Submitter

logger = logging.getLogger(__name__)

_LOOK_TIMEOUT: Final = 0.5
"""Seconds that a status may wait for what follows up on its operation."""


class RetryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a retry."""

    caller: Caller
    principal: Principal | None = None
    """None without authentication."""
    trace: Trace | None = None


class Retrier:
    """Submits follow-ups, and knows them.

    Args:
        journal: the journal.
        status: reads operations.
        submitter: as for clients.
        keys: of confidential operations.
        ids: derive the stored ids; None without authentication.
        documents: read inputs that are payloads.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        status: StatusReader,
        submitter: Submitter,
        keys: OperationKeys,
        ids: OperationIds | None,
        documents: Documents,
    ) -> None:
        self._journal = journal
        self._documents = documents
        self._status = status
        self._submitter = submitter
        self._keys = keys
        self._ids = ids

    async def retry(
        self, stored_id: str, own_id: str, request: RetryRequest, sees: Callable[[Operation], bool] | None
    ) -> Accepted:
        """Submit the follow-up of an operation, in the name of who asks. One that exists is returned as it is.

        Args:
            stored_id: of the operation, which the caller may read.
            own_id: the client's own id of it.
            request: who asks.
            sees: returns True for another operation that the caller may read; None if it may read all.

        Raises:
            ApiError: `OperationNotRetriable`: it has not ended, or has succeeded, its input is not kept any more, or
                its follow-up is another caller's; `Forbidden`: the caller may not submit the action; as
                `Submitter.submit`.
        """
        operation = await self._status.read(stored_id)
        submit = self._submit_of(operation, own_id, request)
        reason = why_not_retriable(operation)
        if reason:
            raise _not_retriable(own_id, reason)
        found = await self._find(submit.stored_id)
        if found is not None:
            return self._existing(found, own_id, submit, sees)
        requested = await self._read_request(operation, own_id)
        submit = msgspec.structs.replace(
            submit, callback=requested.callback, labels=requested.labels, earlier_priority=requested.priority
        )
        try:
            return await self._submitter.submit(submit, await self._read_input(operation, requested, own_id))
        except ApiError as error:
            if error.code is not ErrorCode.OPERATION_ID_REUSED:
                raise
        # Another request was first, and it was not the same caller's.
        return self._existing(await self._status.read(submit.stored_id), own_id, submit, sees)

    async def follow_up_of(self, operation: Operation, own_id: str, sees: Callable[[Operation], bool] | None) -> str:
        """Return the client's id of the follow-up of an operation; empty without one that the caller may read.

        It is a hint for people: empty, too, while the journal does not answer.

        Args:
            operation: its state.
            own_id: the client's own id of it.
            sees: returns True for another operation that the caller may read; None if it may read all.
        """
        if operation.status not in RETRIABLE:
            return ""
        follow_up = follow_up_id(own_id)
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT):
                found = await self._find(self._stored_id(operation.tenant, follow_up))
        except (TimeoutError, ApiError) as error:
            logger.info("operation %s: what follows up on it can't be read: %s", operation.id, error)
            return ""
        is_shown = found is not None and found.retry_of == own_id and (sees is None or sees(found))
        return follow_up if is_shown else ""

    def _submit_of(self, operation: Operation, own_id: str, request: RetryRequest) -> SubmitRequest:
        """Return the submit of a follow-up, without what only the event of the operation has.

        Raises:
            ApiError: `Forbidden`.
        """
        submit = SubmitRequest(
            kind=operation.kind,
            resource_id=operation.resource_id,
            key=IdempotencyKey(operation_id=follow_up_id(own_id), header=OPERATION_ID),
            caller=request.caller,
            status_url="",
            trace=request.trace,
            retry_of=own_id,
        )
        return submit if self._ids is None else admit(submit, request.principal, self._ids)

    def _stored_id(self, tenant: str, own_id: str) -> str:
        return own_id if self._ids is None else self._ids.stored_id(tenant, own_id)

    async def _find(self, stored_id: str) -> Operation | None:
        """Return an operation; None if there is none. One that is not cached costs a read, if there is none.

        Raises:
            ApiError: it can't be read now.
        """
        try:
            if self._status.cached(stored_id) is None and await self._journal.last_message(stored_id) is None:
                return None
            return await self._status.read(stored_id)
        except JournalError as error:
            raise journal_error(error) from error
        except ApiError as error:
            if error.code is not ErrorCode.OPERATION_NOT_FOUND:
                raise
            return None

    def _existing(
        self, found: Operation, own_id: str, submit: SubmitRequest, sees: Callable[[Operation], bool] | None
    ) -> Accepted:
        if found.retry_of != own_id:
            reason = f"can't be done again: the id {submit.key.operation_id} belongs to another request"
            raise _not_retriable(own_id, f"{reason}, so submit the action itself")
        if sees is not None and not sees(found):
            raise _not_retriable(own_id, "is being done again already, or has been, for another caller")
        return Accepted(operation=found, retry_after=self._status.retry_after(found))

    async def _read_input(self, operation: Operation, requested: Requested, own_id: str) -> bytes:
        try:
            key = await self._keys.find(operation.kind, operation.id) if requested.confidential else None
            recorded = await self._documents.read(operation.id, requested.input, requested.input_payload)
            return bytes(recorded if key is None else key.open_json(recorded))
        except PayloadError as error:
            raise payload_error(error, f"the input of operation {operation.public_id} can't be read") from error
        except OperationErased as error:
            raise _not_retriable(own_id, "can't be done again, since it was erased: submit the action") from error
        except SealBroken as error:
            raise operation_unreadable(operation.id, error) from error
        except JournalError as error:
            raise journal_error(error) from error

    async def _read_request(self, operation: Operation, own_id: str) -> Requested:
        try:
            event = await self._journal.last_of_type(operation, Requested.name)
        except JournalError as error:
            raise journal_error(error) from error
        if event is None:
            raise _not_retriable(own_id, "can't be done again, since its input is not kept any more: submit the action")
        if not isinstance(event.data, Requested):
            raise operation_unreadable(operation.id, TypeError(event.type))
        return event.data


def check_empty(body: bytes) -> None:
    """Check the body of a retry, which has the same input as the operation: empty, or `{}`.

    Raises:
        ApiError: `InvalidInput`.
    """
    _, value = decode_input(body)
    if value != {}:
        message = "a retry has the input of the operation: send no body, or submit the action with another input"
        raise ApiError(ErrorCode.INVALID_INPUT, message)


def _not_retriable(own_id: str, reason: str) -> ApiError:
    return ApiError(ErrorCode.OPERATION_NOT_RETRIABLE, f"operation {own_id} {reason}")
