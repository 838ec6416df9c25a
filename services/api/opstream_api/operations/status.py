"""The status of an operation: never older than the journal's last event, however late the projector is (ADR 0004).

Of HTTP this module knows only the error codes. It writes nothing to the broker.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_api.errors import (
    ApiError,
    journal_error,
    note_payload_success,
    operation_not_found,
    operation_unreadable,
    payload_error,
)
from opstream_api.queues.queue_positions import QueuePositions
from opstream_api.queues.waiting_reasons import WaitingReasons
from opstream_journal import ActionCatalog, Journal, JournalError, SnapshotStore
from opstream_journal.errors import OperationErased
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_payloads.documents import Documents
from opstream_payloads.errors import PayloadError
from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName, SealBroken
from opstream_schemas.events import CancelRequested, RecordedEvent
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation, Status
from opstream_schemas.seals.sealed_state import blank_operation, open_operation
from opstream_schemas.status_monitor import (
    BlockedBy,
    StatusMonitor,
    WaitingReason,
    build_status_monitor,
    signal_blocker,
)

from .operation_cache import OperationCache
from .shared_reads import SharedReads

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER: Final = 1
"""Whole seconds between polls of an action that the catalog does not know (contract.md)."""
_MOST_CANCEL_TIMES: Final = 10_000

MAX_START_POLL: Final = 60
"""Whole seconds between polls of an operation that begins, or goes on, much later: it may be canceled before."""


def poll_delay(operation: Operation, usual: int, now: datetime) -> int:
    """Return the whole seconds to wait before the next poll: longer than usual before a start time, and in a sleep.

    Args:
        operation: its state.
        usual: those of its action.
        now: with time zone.
    """
    until = operation.goes_on_at
    return usual if until is None else max(usual, min(math.ceil((until - now).total_seconds()), MAX_START_POLL))


class StatusReader:
    """Reads the state of operations.

    Args:
        journal: the events, which decide.
        snapshots: the projector's snapshots, which save folding.
        catalog: the actions, for their polling interval.
        queue_positions: positions in the queues for exclusive resources.
        waiting_reasons: what operations wait for.
        cache: the operations that this process folded last.
        documents: read results that are payloads.
        keys: of confidential operations.
        now: returns the time with a time zone, to find the end of retention.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        snapshots: SnapshotStore,
        catalog: ActionCatalog,
        queue_positions: QueuePositions,
        waiting_reasons: WaitingReasons,
        cache: OperationCache,
        documents: Documents,
        keys: OperationKeys,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._snapshots = snapshots
        self._catalog = catalog
        self._queue_positions = queue_positions
        self._waiting_reasons = waiting_reasons
        self._cache = cache
        self._documents = documents
        self._keys = keys
        self._now = now
        self._reads = SharedReads(self._read)
        self._cancel_times: dict[str, datetime] = {}
        self._doubted: set[str] = set()
        """Operations whose cached state is older than the last loss of the connection; mostly empty."""

    async def read(self, operation_id: str) -> Operation:
        """Return the current state of an operation.

        A terminal state is final, so any copy of it is current. Any other copy is compared with the journal's last
        event, and the missing events are folded on top of it. Where the journal has less than that copy, or may have
        lost something since (`doubt_cached`), the view is asked, too.

        Raises:
            ApiError: `OperationNotFound`: never requested, or its retention is over; `JournalUnavailable`;
                `InternalError`: its events can't be folded.
        """
        try:
            check_operation_id(operation_id)  # an invalid id must not become part of a subject
            known = self._cache.get(operation_id)
            if known is None or not known.is_terminal:
                known = await self._reads.read(operation_id)
        except InvalidName as error:
            raise operation_not_found() from error
        except JournalError as error:
            raise journal_error(error) from error
        if known is None:
            raise operation_not_found()
        if (
            known.finished_at is not None
            and (self._now() - known.finished_at).total_seconds() >= known.effective_retention
        ):
            self._cache.drop(operation_id)
            raise operation_not_found()
        return known

    def retry_after(self, operation: Operation) -> int:
        """Return the whole seconds to wait before the next poll."""
        spec = self._catalog.specs.get(operation.kind)
        return poll_delay(operation, spec.policy.retry_after if spec else DEFAULT_RETRY_AFTER, self._now())

    async def monitor(self, operation: Operation, sees: Callable[[Operation], bool] | None = None) -> StatusMonitor:
        """Return the status monitor of an operation, also with what is in none of its events.

        Why it does not run is a hint for people: any replica may serve the read, and a failed read only leaves it out.
        One that runs, or was requested a moment ago, costs no read; a result that is a payload costs one of the store.

        Args:
            operation: the operation.
            sees: returns True for another operation that the caller may read; None if it may read all.

        Raises:
            ApiError: as `with_result`.
        """
        if operation.result_payload is not None or operation.confidential:
            operation = await self.with_result(operation)
        if operation.is_terminal or (operation.live is not None and operation.cancel is None):
            return build_status_monitor(operation)
        cancel_requested_at = await self.cancel_requested_at(operation)
        try:
            blocked_by = await self._find_blocker(operation, sees) if operation.live is None else None
        except JournalError as error:
            logger.info("operation %s: what it waits for can't be read: %s", operation.id, error)
            blocked_by = None
        return build_status_monitor(operation, blocked_by=blocked_by, cancel_requested_at=cancel_requested_at)

    async def with_result(self, operation: Operation) -> Operation:
        """Return an operation as its readers see it: with its result, also if that is a payload, which this reads; a
        confidential one opened by its key, or what is left of it.

        The key is read each time, from who leads: once an erasure is answered, no process opens the operation.

        Raises:
            ApiError: `PayloadStoreUnavailable`, `PayloadUnreadable`; `KeysUnavailable`: this service has no
                key-encryption key; `KeyMissing`; `JournalUnavailable`.
        """
        if not operation.confidential:
            return await self._fetched(operation)
        if operation.position == 1:  # a request has nothing that a status shows
            return operation
        try:
            key = await self._keys.find(operation.kind, operation.id)
            return open_operation(await self._fetched(operation), key)
        except OperationErased as erased:
            return blank_operation(operation, erased.erasure)
        except SealBroken as error:
            raise operation_unreadable(operation.id, error) from error
        except JournalError as error:
            raise journal_error(error) from error

    async def _fetched(self, operation: Operation) -> Operation:
        payload = operation.result_payload
        if payload is None or isinstance(operation.result, msgspec.Raw):
            return operation
        try:
            result = await self._documents.read(operation.id, operation.result, payload)
        except PayloadError as error:
            raise payload_error(error, f"the result of operation {operation.public_id} can't be read") from error
        note_payload_success()
        return msgspec.structs.replace(operation, result=result)

    async def cancel_requested_at(self, operation: Operation) -> datetime | None:
        """Return since when an open operation is to stop; None if it is not, or that can't be read.

        It never changes, so it is read once.
        """
        if operation.cancel is None or operation.is_terminal:
            return None
        known = self._cancel_times.get(operation.id)
        if known is None:
            try:
                found = await self._journal.last_of_type(operation, CancelRequested.name)
            except JournalError as error:
                logger.info("operation %s: when its cancel was requested can't be read: %s", operation.id, error)
                return None
            if found is None:
                return None
            if len(self._cancel_times) >= _MOST_CANCEL_TIMES:
                del self._cancel_times[next(iter(self._cancel_times))]
            known = self._cancel_times[operation.id] = found.time
        return known

    async def _find_blocker(self, operation: Operation, sees: Callable[[Operation], bool] | None) -> BlockedBy | None:
        if (awaited := signal_blocker(operation)) is not None:
            return awaited
        has_begun_to_wait = operation.start_at is None or operation.start_at <= self._now()
        may_queue = operation.status is Status.NOT_STARTED or (
            operation.has_let_go and self._waiting_reasons.is_due(operation)
        )
        if has_begun_to_wait and operation.hold and may_queue:
            position = await self._queue_positions.position_of(operation)
            if position:
                is_due = self._waiting_reasons.is_due(operation)
                owner = await self._shown_owner(operation, sees) if is_due else ""
                return BlockedBy(reason=WaitingReason.RESOURCE, position=position, operation_id=owner)
        spec = self._catalog.specs.get(operation.kind)
        if spec is not None:
            return await self._waiting_reasons.find(operation, spec.policy)
        is_bulk = operation.kind in BULK_KINDS
        return await self._waiting_reasons.find_for_bulk(operation) if is_bulk else None

    async def _shown_owner(self, operation: Operation, sees: Callable[[Operation], bool] | None) -> str:
        """Return the id of the operation that has the resource; empty for none, and for one that the caller can't see.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        owner = await self._queue_positions.owner_of(operation.hold)
        if not owner or owner == operation.id or sees is None:
            return "" if owner == operation.id else owner
        try:
            found = self._cache.peek(owner) or await self.read(owner)
        except ApiError:
            return ""
        return found.own_id if sees(found) else ""

    def doubt_cached(self) -> None:
        """Compare each open state of the cache once with the view, too: the broker may come back with less.

        A journal that ends with the cached state says nothing of an end that it has lost (ADR 0032).
        """
        self._doubted.update(self._cache.open_ids())

    def is_followed(self, operation_id: str, sequence: int) -> bool:
        """Return True if an event of an operation may be the next one to be folded into its cached state.

        Not after a lost connection, until the state was compared with the view (`doubt_cached`).

        Args:
            operation_id: the operation.
            sequence: the event's stream sequence. What the state has already, as what this process has stored itself,
                need not be decoded.
        """
        known = self._cache.peek(operation_id)
        is_news = known is not None and sequence > known.stream_sequence and not known.is_terminal
        return is_news and operation_id not in self._doubted

    def fold_next(self, event: RecordedEvent) -> None:
        """Fold an event that the journal has stored into its operation's cached state, if it is the next one.

        Raises:
            FoldRefused: it does not follow that state.
        """
        known = self._cache.peek(event.operation_id)
        if known is not None and event.sequence > known.stream_sequence and event.position == known.position + 1:
            self._cache.put(fold_for_reader(known, [event]) or known)

    def known_state(self, operation_id: str) -> Operation | None:
        """Return the cached state of an operation, which may be old; None without one, and while it is in doubt."""
        return None if operation_id in self._doubted else self._cache.peek(operation_id)

    def cached(self, operation_id: str) -> Operation | None:
        """Return the cached state of an operation, however old; None without one. It tells only what never changes."""
        return self._cache.peek(operation_id)

    async def refold(self, operation_id: str) -> Operation:
        """Return the state of an operation from its events alone, without the view, and cache it.

        Raises:
            ApiError: as `read`.
        """
        try:
            check_operation_id(operation_id)
            operation = fold_for_reader(None, await self._journal.events(operation_id))
        except InvalidName as error:
            raise operation_not_found() from error
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
        except JournalError as error:
            raise journal_error(error) from error
        if operation is None:
            raise operation_not_found()
        self._cache.drop(operation_id)
        return self._cache.put(operation)

    def known_end(self, operation_id: str) -> Operation | None:
        """Return the cached state of an operation if it has ended; None otherwise."""
        known = self._cache.peek(operation_id)
        return known if known is not None and known.is_terminal else None

    async def _read(self, operation_id: str) -> Operation | None:
        known = self._cache.get(operation_id)
        is_compared = known is None or operation_id in self._doubted
        if is_compared:
            known = await self._compare_with_view(operation_id, known)
            if known is not None and known.is_terminal:
                return known
        last = await self._journal.last_message(operation_id)
        if not is_compared and known is not None and (last is None or last.seq < known.stream_sequence):
            known = await self._compare_with_view(operation_id, known)
            if known is not None and known.is_terminal:
                return known
        if last is None:
            self._cache.drop(operation_id)
            return None
        operation = await self._fold(operation_id, last, known)
        return None if operation is None else self._cache.put(operation)

    async def _compare_with_view(self, operation_id: str, known: Operation | None) -> Operation | None:
        """Return the newer of the cached and the view's state; an end is final, whatever its sequence."""
        viewed = (await self._snapshots.get(operation_id)).operation
        self._doubted.discard(operation_id)
        if viewed is None or (
            known is not None and not viewed.is_terminal and viewed.stream_sequence <= known.stream_sequence
        ):
            return known
        if viewed.is_terminal:
            self._cache.drop(operation_id)  # which may have an open state with a later sequence, of another history
            return self._cache.put(viewed)
        return viewed

    async def _fold(self, operation_id: str, last: StoredMessage, known: Operation | None) -> Operation | None:
        if known is not None and known.stream_sequence >= last.seq:
            return known
        try:
            return fold_for_reader(known, await self._journal.events_up_to(last, since=known))
        except (FoldRefused, InvalidEvent) as error:
            if known is None:
                raise operation_unreadable(operation_id, error) from error
            # The snapshot may belong to another history (a restored stream, a reused id). The journal decides.
            logger.warning("operation %s is folded again from its start: %s", operation_id, error)
        self._cache.drop(operation_id)
        known = await self._compare_with_view(operation_id, None)
        if known is not None and known.is_terminal:
            return known
        try:
            return fold_for_reader(None, await self._journal.events_up_to(last))
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
