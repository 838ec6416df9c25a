"""Reading an operation's state: always at least as new as the journal's leader says, whatever the projector does.

Knows nothing of HTTP but the error codes. Called by `app.py`; writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from opstream_api.errors import journal_error, operation_not_found, operation_unreadable
from opstream_journal import ActionCatalog, Journal, JournalError, SnapshotStore
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation, Status

from .operation_cache import OperationCache
from .queue_positions import QueuePositions

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER: Final = 1
"""Whole seconds between polls of an action that the catalog does not know (contract.md)."""


class StatusReader:
    """Reads operations.

    Args:
        journal: the truth.
        view: the projector's snapshots, which save folding.
        catalog: for the pace of polling.
        places: in the queues for exclusive resources.
        cache: what this process folded before.
        now: the time, with its zone; only for the end of retention.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        view: SnapshotStore,
        catalog: ActionCatalog,
        places: QueuePositions,
        cache: OperationCache,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._snapshots = view
        self._catalog = catalog
        self._queue_positions = places
        self._cache = cache
        self._now = now

    async def read(self, operation_id: str) -> Operation:
        """The operation as it is now.

        A terminal state is final, so any copy of it will do. Any other is compared with the leader's last event (the
        floor), and what is missing is folded on top.

        Raises:
            ApiError: `OperationNotFound`: never requested, or its retention is over; `JournalUnavailable`;
                `InternalError`: its events can't be folded.
        """
        try:
            check_operation_id(operation_id)  # what is none must not reach a subject
            known = self._cache.get(operation_id)
            if known is None or not known.is_terminal:
                known = await self._read(operation_id, known)
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
        """Whole seconds that the client should wait before it polls again."""
        spec = self._catalog.specs.get(operation.kind)
        return spec.policy.retry_after if spec else DEFAULT_RETRY_AFTER

    async def queue_position(self, operation: Operation) -> int:
        """The place of an operation among those that wait for its resource: 1 for the next, 0 for none, or unknown.

        It is told as a service, not as a fact: from any replica, and left out where it can't be read.
        """
        if not operation.hold or operation.status is not Status.NOT_STARTED:
            return 0
        try:
            return await self._queue_positions.position_of(operation)
        except JournalError as error:
            logger.info("operation %s: its place in the queue can't be read: %s", operation.id, error)
            return 0

    async def _read(self, operation_id: str, known: Operation | None) -> Operation | None:
        if known is None:
            known = (await self._snapshots.get(operation_id)).operation
            if known is not None and known.is_terminal:
                return self._cache.put(known)
        floor = await self._journal.last_message(operation_id)
        if floor is None:
            self._cache.drop(operation_id)
            return None
        operation = await self._fold(operation_id, floor, known)
        return None if operation is None else self._cache.put(operation)

    async def _fold(self, operation_id: str, floor: StoredMessage, known: Operation | None) -> Operation | None:
        if known is not None and known.stream_sequence >= floor.seq:
            return known
        try:
            return fold_for_reader(known, await self._journal.events_up_to(floor, since=known))
        except (FoldRefused, InvalidEvent) as error:
            if known is None:
                raise operation_unreadable(operation_id, error) from error
            # The snapshot may be another history's (a restored stream, an id used again); the journal decides.
            logger.warning("operation %s is folded again from its start: %s", operation_id, error)
        self._cache.drop(operation_id)
        try:
            return fold_for_reader(None, await self._journal.events_up_to(floor))
        except (FoldRefused, InvalidEvent) as error:
            raise operation_unreadable(operation_id, error) from error
