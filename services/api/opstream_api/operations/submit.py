"""Submitting: from a checked request to a recorded `requested` event, exactly once for each operation id.

Knows nothing of HTTP but the error codes. Called by `app.py`; the only writer of this service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from opstream_api.errors import ApiError, journal_error, operation_unreadable
from opstream_api.http.caller_identity import Caller
from opstream_api.http.idempotency import IdempotencyKey
from opstream_journal import (
    NEW_OPERATION,
    ActionCatalog,
    Journal,
    JournalError,
    JournalFull,
    JournalUnavailable,
    VersionConflict,
)
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import Requested, Trace
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event, fold_for_reader, initial
from opstream_schemas.operation.resource_lock import busy_error
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import request_hash

from .input_validation import InputValidator, decode_input
from .journal_capacity import JournalCapacity
from .operation_cache import OperationCache

logger = logging.getLogger(__name__)

BUDGET: Final = 4.5
"""Seconds in which a submit must be decided (5 in contract.md, less what reading and answering take)."""
EVENT_SOURCE: Final = "opstream/api"
"""CloudEvents `source` of the events that this service records."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose path and headers are in order."""

    kind: Kind
    resource_id: str
    key: IdempotencyKey
    caller: Caller
    body: bytes
    trace: Trace | None
    callback: str = ""
    """Where the outcome is to be delivered; empty for nowhere."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded."""

    operation: Operation
    """As it is by now: a request that is sent again may find its operation finished."""
    retry_after: int
    """Whole seconds that the client should wait before it polls."""


class Submitter:
    """Records requests.

    Args:
        journal: where to.
        catalog: what runners offer.
        capacity: whether the journal takes new operations.
        holds: who has an exclusive resource.
        cache: gets each new operation, so that its status is cheap from the first poll on.
        now: the time of events and deadlines, with its zone.
        clock: monotonic seconds.
        new_id: draws event ids.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        catalog: ActionCatalog,
        capacity: JournalCapacity,
        holds: ResourceLocks,
        cache: OperationCache,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._journal = journal
        self._catalog = catalog
        self._capacity = capacity
        self._holds = holds
        self._cache = cache
        self._now = now
        self._clock = clock
        self._new_id = new_id
        self._validators = InputValidator()

    async def submit(self, submission: Submission) -> Accepted:
        """Record the request, or find the operation that an identical one made.

        Takes `BUDGET` seconds at most, whatever the broker does.

        Raises:
            ApiError: `UnknownAction`, `InvalidInput`, `PayloadTooLarge`; `OperationIdReused` for an id that another
                request has; `ResourceBusy` for a resource that another operation holds, if the action rejects such
                requests; `JournalUnavailable` and `JournalFull` name the operation id, under which the same request
                may be sent again: it is then stored once, whether it had been stored the first time or not.
        """
        tried, is_repeatable = submission.key.operation_id, submission.key.is_repeatable
        until = self._clock() + BUDGET
        try:
            async with asyncio.timeout(BUDGET):
                return await self._submit(submission, until)
        except TimeoutError:
            # The journal's own budget ends a try with a last read, which may take longer than what was left.
            late = JournalUnavailable(f"submitting {tried} took over {BUDGET:g} s", maybe_stored=True)
            raise journal_error(late, operation_id=tried, is_repeatable=is_repeatable) from None
        except InvalidEvent as error:
            raise ApiError(ErrorCode.INVALID_INPUT, f"the request can't be recorded: {error}") from error
        except JournalError as error:
            raise journal_error(error, operation_id=tried, is_repeatable=is_repeatable) from error

    async def _submit(self, submission: Submission, until: float) -> Accepted:
        kind = submission.kind
        spec = await self._catalog.find(kind)
        if spec is None:
            message = f"no runner has announced the action {kind}; /openapi.json lists those that are known"
            raise ApiError(ErrorCode.UNKNOWN_ACTION, message)
        document, value = decode_input(submission.body)
        self._validators.validate(spec, value)
        digest = request_hash(kind, submission.resource_id, value, submission.caller.identity, submission.callback)
        try:
            self._capacity.ensure_room()
        except JournalFull:
            if await self._journal.last_message(submission.key.operation_id) is None:
                raise
            return _accepted(self._cache.put(await self._find_existing(submission.key, digest)), spec)
        hold = subjects.lock_key(spec.lock_scope, submission.resource_id) if spec.lock_scope else ""
        if spec.policy.on_conflict == "reject" and hold:
            await self._check_resource_free(submission, hold)
        now = self._now()
        requested = Requested(
            resource=kind.resource,
            resource_id=submission.resource_id,
            action=kind.action,
            action_version=spec.action_version,
            input=msgspec.Raw(document),
            request_hash=digest,
            deadline=now + timedelta(seconds=spec.policy.deadline),
            retention=spec.policy.retention,
            retention_failed=spec.policy.retention_failed,
            retention_canceled=spec.policy.retention_canceled,
            hold=hold,
            caller=submission.caller.identity,
            client_id=submission.caller.client_id,
            client_address=submission.caller.client_address,
            callback=submission.callback,
            trace=submission.trace,
        )
        event = first_event(submission.key.operation_id, requested, id=self._new_id(), source=EVENT_SOURCE, time=now)
        try:
            recorded = await self._journal.append(kind, event, NEW_OPERATION, budget=until - self._clock())
        except VersionConflict:
            operation = await self._find_existing(submission.key, digest)
        else:
            self._capacity.reserve(len(document))
            crash_point(CrashPoint.API_RECORDED)
            operation = initial(recorded)
        return _accepted(self._cache.put(operation), spec)

    async def _check_resource_free(self, submission: Submission, hold: str) -> None:
        """Refuse while another operation holds the resource. Two that pass at once are told apart by the runner."""
        holder = await self._holds.owner(hold)
        if holder is None:
            return
        if await self._journal.last_message(submission.key.operation_id) is not None:
            return  # perhaps the same request once more, perhaps the holder's own: its answer stays what it was
        error = busy_error(submission.kind, submission.resource_id, holder.operation_id)
        raise ApiError(ErrorCode.RESOURCE_BUSY, error.message, target=error.target)

    async def _find_existing(self, identity: IdempotencyKey, digest: str) -> Operation:
        operation_id = identity.operation_id
        try:
            operation = fold_for_reader(None, await self._journal.events(operation_id))
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
        if operation is None or operation.request_hash != digest:
            # None: its beginning has expired, so nobody can tell any more what was asked.
            message = f"{identity.header} names operation {operation_id} of another request: take a new one"
            raise ApiError(ErrorCode.OPERATION_ID_REUSED, message, target=identity.header)
        return operation


def _accepted(operation: Operation, spec: ActionSpec) -> Accepted:
    return Accepted(operation=operation, retry_after=spec.policy.retry_after)
