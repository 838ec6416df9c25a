"""Submit: a parsed request becomes the `requested` event of an operation, exactly once for each operation id.

Of HTTP this module knows the parsed request and the error codes, no headers and no responses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from math import inf
from typing import Any, Final

import msgspec

from opstream_api.access.limits.open_operations import OpenOperations
from opstream_api.access.principal import Owner
from opstream_api.errors import (
    JOURNAL_OUTAGE,
    ApiError,
    action_not_served,
    journal_error,
    note_payload_success,
    operation_unreadable,
    payload_error,
    too_many_requests,
)
from opstream_api.http.submit_request import SubmitRequest
from opstream_api.inputs.input_validation import InputValidator, decode_input
from opstream_api.inputs.same_request import has_hash, is_same_request, is_same_retry
from opstream_api.inputs.sealable import check_sealable
from opstream_api.inputs.start_time import check_start
from opstream_api.queues.runner_presence import RunnerPresence
from opstream_journal import (
    NEW_OPERATION,
    ActionCatalog,
    Journal,
    JournalError,
    JournalFull,
    JournalUnavailable,
    SnapshotStore,
    VersionConflict,
)
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.provisioning.bulk_actions import BULK_SPECS
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import queue_request
from opstream_payloads.documents import Documents
from opstream_payloads.errors import PayloadError
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import Event, RecordedEvent, Requested
from opstream_schemas.logs.access_log import DenialReason
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event, fold_for_reader, initial
from opstream_schemas.operation.resource_lock import busy_error
from opstream_schemas.operation.state import Operation, Status
from opstream_schemas.status_monitor import BlockedBy, WaitingReason, request_hash, start_text

from .journal_capacity import JournalCapacity
from .operation_cache import OperationCache
from .status import poll_delay

logger = logging.getLogger(__name__)

BUDGET: Final = 4.5
"""Seconds for one submit: the contract's 5 (contract.md), less the time to read the request and to respond."""
OPEN_RETRY_AFTER: Final = 5
"""Seconds after which a caller may try again that has as many operations open as it may. When one ends is not known."""
EVENT_SOURCE: Final = "opstream/api"
"""CloudEvents `source` of the events that this service appends."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The operation of a submit, which the journal has."""

    operation: Operation
    """Its current state: a repeated request may find its operation finished."""
    retry_after: int
    """Whole seconds to wait before the first poll."""
    blocked_by: BlockedBy | None = None
    """Why no runner takes it; None if one does, or it is not known."""


class Submitter:
    """Appends the first event of operations.

    Args:
        journal: the journal.
        catalog: the actions that runners offer.
        capacity: tells whether the journal has room for another operation.
        locks: the exclusive resources and their owners.
        cache: gets each new operation, so that its first poll needs no snapshot.
        snapshots: the view, which may be the only one to know an id while the journal has a setback.
        runners: knows the actions that no runner takes.
        documents: stores inputs that are too large for an event.
        keys: of confidential operations.
        now: returns the time for events and deadlines, with a time zone.
        clock: returns monotonic seconds.
        new_id: generates event ids.
        open_operations: of each caller; None for no limit.
        refuse_unserved_after: seconds without a runner after which an action is refused; 0 for never.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        catalog: ActionCatalog,
        capacity: JournalCapacity,
        locks: ResourceLocks,
        cache: OperationCache,
        snapshots: SnapshotStore,
        runners: RunnerPresence,
        documents: Documents,
        keys: OperationKeys,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        new_id: Callable[[], str],
        open_operations: OpenOperations | None = None,
        refuse_unserved_after: float = 0.0,
    ) -> None:
        self._journal = journal
        self._catalog = catalog
        self._capacity = capacity
        self._locks = locks
        self._cache = cache
        self._snapshots = snapshots
        self._runners = runners
        self._documents = documents
        self._keys = keys
        self._now = now
        self._clock = clock
        self._new_id = new_id
        self._open = open_operations
        self._refuse_unserved_after = refuse_unserved_after
        self._validator = InputValidator()

    def knows(self, kind: Kind) -> bool:
        """Return True if the catalog has an action. It may not have heard of one that was just announced."""
        return kind in self._catalog.specs

    async def check_input(self, kind: Kind, body: bytes) -> None:
        """Check that an action exists, and that it takes the input of a schedule, as `submit` does.

        Raises:
            ApiError: `UnknownAction`, `InvalidInput`: also of a confidential action.
            JournalError: the broker did not answer.
        """
        spec = await self._find_spec(kind)
        if spec.policy.confidential:
            message = f"{kind} is confidential, and its schedule would keep the input in the clear: submit it yourself"
            raise ApiError(ErrorCode.INVALID_INPUT, message, target="action")
        self._validator.validate(spec, *decode_input(body))

    async def submit(self, request: SubmitRequest, body: bytes) -> Accepted:
        """Validate the input and append the `requested` event, or find the operation of the same request sent before.

        Takes at most `BUDGET` seconds.

        Raises:
            ApiError: `UnknownAction`, `InvalidInput`, `PayloadTooLarge`; `OperationIdReused`: another request has this
                operation id; `OperationErased`: one that was erased had it; `KeysUnavailable`: the action is
                confidential, and this service has no key-encryption key; `ResourceBusy`: another operation owns the
                resource and the action rejects conflicts; `ActionNotServed`: no runner has taken the action for longer
                than this service is told to accept; `JournalUnavailable`, `JournalFull` and `PayloadStoreUnavailable`:
                the error names the operation id. The client may send the same request again with it; the journal then
                has the request once, stored by either try.
        """
        operation_id, is_repeatable = request.key.operation_id, request.key.is_repeatable
        until = self._clock() + BUDGET
        try:
            async with asyncio.timeout(BUDGET):
                return await self._submit(request, body, until)
        except TimeoutError:
            # The journal ends its own budget with a last read, which may take longer than the time that is left.
            late = JournalUnavailable(f"submitting {operation_id} took more than {BUDGET:g} s", maybe_stored=True)
            raise journal_error(late, operation_id=operation_id, is_repeatable=is_repeatable) from None
        except InvalidEvent as error:
            raise ApiError(ErrorCode.INVALID_INPUT, f"the request can't be stored as an event: {error}") from error
        except JournalError as error:
            raise journal_error(error, operation_id=operation_id, is_repeatable=is_repeatable) from error
        except PayloadError as error:
            what = "the input can't be stored or compared now"
            raise payload_error(error, what, operation_id=operation_id, is_repeatable=is_repeatable) from error

    async def _submit(self, request: SubmitRequest, body: bytes, until: float) -> Accepted:
        kind = request.kind
        spec = await self._find_spec(kind)
        document, value = self._validator.validate(spec, *decode_input(body))
        if spec.policy.confidential:
            check_sealable(request)
        wish = start_text(request.start.at, request.start.after)
        caller = request.caller.identity
        digest = request_hash(kind, request.resource_id, value, caller, request.callback, wish, request.uploads)
        if self._cache.is_suspended and (ended := await self._find_lost(request, digest)) is not None:
            return self._accepted(self._cache.put(ended), spec)
        if (refusal := await self._find_refusal(request, spec)) is not None:
            if await self._journal.last_message(request.stored_id) is None:
                raise refusal
            return self._accepted(self._cache.put(await self._find_existing(request, value, digest)), spec)
        lock = subjects.lock_key(spec.lock_scope, request.resource_id, request.tenant) if spec.lock_scope else ""
        now = self._now()
        begins_at, start_at = now, request.start.moment(now)
        if start_at is not None:
            check_start(spec, start_at, now, kept=self._capacity.max_age or inf)
            begins_at = max(now, start_at)
        if spec.policy.on_conflict == "reject" and lock and begins_at == now:
            await self._check_resource_free(request, lock)
        key = await self._keys.make(kind, request.stored_id) if spec.policy.confidential else None
        if key is not None:
            document = bytes(key.seal_json(msgspec.Raw(document)))
        payload = None
        if not self._documents.is_inline(document):
            if await self._journal.last_message(request.stored_id) is not None:
                return self._accepted(self._cache.put(await self._find_existing(request, value, digest)), spec)
            payload = await self._documents.store(request.stored_id, document)
            note_payload_success()
            crash_point(CrashPoint.API_PAYLOAD_STORED)
        requested = Requested(
            resource=kind.resource,
            resource_id=request.resource_id,
            action=kind.action,
            action_version=spec.action_version,
            input=msgspec.UNSET if payload is not None else msgspec.Raw(document),
            input_payload=payload,
            request_hash=digest if key is None else key.keyed_hash(digest),
            deadline=request.deadline(begins_at, spec.policy.deadline),
            retention=spec.policy.retention,
            retention_failed=spec.policy.retention_failed,
            retention_canceled=spec.policy.retention_canceled,
            hold=lock,
            caller=caller,
            client_id=request.caller.client_id,
            client_address=request.caller.client_address,
            callback=request.callback,
            tenant=request.tenant,
            own_id=request.own_id,
            trace=request.trace,
            start_at=start_at,
            start_after=request.start.after,
            labels=request.labels,
            retry_of=request.retry_of,
            authority=request.authority,
            priority=request.priority_for(spec.policy.priority),
            parent=request.parent,
            uploads=request.uploads,
            confidential=key is not None,
        )
        event = first_event(request.stored_id, requested, id=self._new_id(), source=EVENT_SOURCE, time=now)
        try:
            recorded = await self._append(request, event, until)
        except VersionConflict:
            operation = await self._find_existing(request, value, digest)
        else:
            JOURNAL_OUTAGE.recovered()
            self._capacity.reserve(len(document) if payload is None else 0)
            crash_point(CrashPoint.API_RECORDED)
            self._runners.note_submit(kind)
            operation = initial(recorded)
            if begins_at == now:
                queue_request(self._journal.connection, operation)
        accepted = self._accepted(self._cache.put(operation), spec)
        blocked_by = await self._find_blocker(operation, spec)
        return accepted if blocked_by is None else msgspec.structs.replace(accepted, blocked_by=blocked_by)

    async def _find_blocker(self, operation: Operation, spec: ActionSpec) -> BlockedBy | None:
        if operation.status is not Status.NOT_STARTED:
            return None
        if operation.start_at is not None and self._now() < operation.start_at:
            return BlockedBy(reason=WaitingReason.START_TIME, until=operation.start_at)
        return await self._runners.unserved(spec)

    async def _find_refusal(self, request: SubmitRequest, spec: ActionSpec) -> JournalFull | ApiError | None:
        """Return why no operation can begin now that has not begun before; None if it can."""
        try:
            self._capacity.ensure_room()
        except JournalFull as full:
            return full
        if self._open is not None and request.parent is None and self._open.is_full(request.stored_id, _owner(request)):
            return _too_many_open(self._open.limit)
        return await self._find_unserved(request, spec) if self._refuse_unserved_after else None

    async def _find_unserved(self, request: SubmitRequest, spec: ActionSpec) -> ApiError | None:
        """Return the error for an action that has had no runner for too long; None for one that is accepted."""
        blocked_by = await self._runners.unserved(spec)
        if blocked_by is None or blocked_by.reason != WaitingReason.RUNNER or blocked_by.since is None:
            return None
        if (self._now() - blocked_by.since).total_seconds() < self._refuse_unserved_after:
            return None
        key = request.key
        return action_not_served(
            spec.kind, blocked_by.since, operation_id=key.operation_id, is_repeatable=key.is_repeatable
        )

    async def _find_spec(self, kind: Kind) -> ActionSpec:
        spec = BULK_SPECS.get(kind) or await self._catalog.find(kind)
        if spec is None:
            message = f"no runner has announced the action {kind}; /openapi.json lists the known ones"
            raise ApiError(ErrorCode.UNKNOWN_ACTION, message)
        return spec

    async def _append(self, request: SubmitRequest, event: Event, until: float) -> RecordedEvent:
        """Append the event; until it is stored or refused it counts as an open operation of the caller.

        Raises:
            JournalError: as `Journal.append`.
            ApiError: `TooManyRequests`: others of the caller came first.
        """
        counted = self._open if request.parent is None else None  # of a child only its parent counts
        if counted is None:
            return await self._journal.append(request.kind, event, NEW_OPERATION, budget=until - self._clock())
        if counted.is_full(request.stored_id, _owner(request)):
            raise _too_many_open(counted.limit)
        sequence = 0
        is_ours = counted.begin(request.stored_id, _owner(request))
        try:
            recorded = await self._journal.append(request.kind, event, NEW_OPERATION, budget=until - self._clock())
            sequence = recorded.sequence
        finally:
            if is_ours:
                counted.settle(request.stored_id, sequence=sequence)
        return recorded

    def _accepted(self, operation: Operation, spec: ActionSpec) -> Accepted:
        return Accepted(operation=operation, retry_after=poll_delay(operation, spec.policy.retry_after, self._now()))

    async def _check_resource_free(self, request: SubmitRequest, lock: str) -> None:
        """Refuse the request while another operation owns the resource.

        Two requests that pass this check at the same time are both accepted; the runner rejects one of them.

        Raises:
            ApiError: `ResourceBusy`.
        """
        owner = await self._locks.owner(lock)
        if owner is None:
            return
        if await self._journal.last_message(request.stored_id) is not None:
            return  # a repeated request, perhaps the owner's own, gets the response that it got before
        # With authentication the owner may be another caller's, whose id this one must not see.
        owner_id = "" if request.own_id else owner.operation_id
        error = busy_error(request.kind, request.resource_id, owner_id)
        raise ApiError(ErrorCode.RESOURCE_BUSY, error.message, target=error.target)

    async def _find_lost(self, request: SubmitRequest, digest: str) -> Operation | None:
        """Return the ended operation of the same request, of which the journal may have lost all events.

        None if the view does not know the id, or if the journal does: then the journal decides as at other times.

        Raises:
            ApiError: `OperationIdReused`: the id is that of another operation, or of one that had not ended, of which
                the journal has lost all events. Recorded under the same id, it could neither go on nor be shown.
        """
        key = request.key
        viewed = (await self._snapshots.get(request.stored_id)).operation
        if viewed is None or viewed.is_retention_over(self._now()):
            return None
        if viewed.is_terminal and await has_hash(self._keys, viewed, digest):
            return viewed
        if await self._journal.last_message(request.stored_id) is not None:
            return None
        what = "of another request" if viewed.is_terminal else "of which the journal has lost all events"
        message = f"{key.header} names operation {key.operation_id} {what}: use a new one"
        raise ApiError(ErrorCode.OPERATION_ID_REUSED, message, target=key.header)

    async def _find_existing(self, request: SubmitRequest, value: Any, digest: str) -> Operation:  # noqa: ANN401 - JSON
        key = request.key
        try:
            events = await self._journal.events(request.stored_id)
            operation = fold_for_reader(None, events)
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(request.stored_id, error) from error
        # None: its first event has expired, so the requests can't be compared any more.
        if operation is None or not (
            is_same_retry(operation, request)
            or await has_hash(self._keys, operation, digest)
            or await is_same_request(self._keys, self._documents, events[0].data, request, value)
        ):
            message = f"{key.header} names operation {key.operation_id} of another request: use a new one"
            raise ApiError(ErrorCode.OPERATION_ID_REUSED, message, target=key.header)
        return operation


def _owner(request: SubmitRequest) -> Owner:
    return Owner(request.tenant, request.caller.identity)


def _too_many_open(limit: int) -> ApiError:
    message = f"this caller has {limit} operations open, which is its limit: wait until one of them has ended"
    return too_many_requests(message, OPEN_RETRY_AFTER, DenialReason.TOO_MANY_OPEN)
