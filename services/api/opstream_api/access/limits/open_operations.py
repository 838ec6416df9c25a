"""How many operations each caller has open: counted by the journal's events and by what is being submitted here. Pure.

An operation counts from the moment before its request is stored, so that no burst gets past the limit; if it was not
stored after all, it is withdrawn. The event, when it is seen, says the same once more and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from opstream_api.access.principal import Owner
from opstream_schemas.text import truncate_text

logger = logging.getLogger(__name__)

MAX_TRACKED: Final = 100_000
"""Open operations of all callers that a process counts. Further ones count for no caller."""


class OpenOperations:
    """The open operations of all callers.

    Args:
        limit: operations of one caller.
        max_tracked: of all callers.
    """

    def __init__(self, limit: int, *, max_tracked: int = MAX_TRACKED) -> None:
        self.limit = limit
        self._max_tracked = max_tracked
        self._owners: dict[str, Owner] = {}
        self._counts: dict[Owner, int] = {}
        self._submitting: set[str] = set()
        """Those of this process whose event was not seen yet, and that are perhaps not stored."""
        self._followed_from = 0
        """The stream sequence from which on all events are seen since the last `replace`."""
        self._doubtful: set[str] = set()
        """Those being submitted that were not found by the last `replace`: not stored then, or ended before."""
        self._has_complained = False

    def __len__(self) -> int:
        return len(self._owners)

    def count(self, owner: Owner) -> int:
        """Return how many operations a caller has open."""
        return self._counts.get(owner, 0)

    def is_full(self, operation_id: str, owner: Owner) -> bool:
        """Return True if a caller may not begin an operation. One that counts already is no new one."""
        return self.count(owner) >= self.limit and operation_id not in self._owners

    def begin(self, operation_id: str, owner: Owner) -> bool:
        """Count an operation that is about to be stored; return False if it counts already."""
        if operation_id in self._owners:
            return False
        self.add(operation_id, owner)
        self._submitting.add(operation_id)
        return True

    def settle(self, operation_id: str, *, sequence: int) -> None:
        """End what `begin` began. What was not stored counts no more, unless its event was seen.

        Args:
            operation_id: the operation.
            sequence: the stream sequence of its request; 0 if that is not known to be stored.
        """
        if operation_id in self._submitting:
            self._submitting.discard(operation_id)
            # Stored before a gap in what was seen, and not found open after it: it has ended in the gap.
            is_missed = operation_id in self._doubtful and sequence < self._followed_from
            if not sequence or is_missed:
                self._remove(operation_id)
        self._doubtful.discard(operation_id)

    def add(self, operation_id: str, owner: Owner) -> None:
        """Count an operation whose request is in the journal."""
        self._submitting.discard(operation_id)
        self._doubtful.discard(operation_id)
        if operation_id in self._owners:
            return
        if len(self._owners) >= self._max_tracked:
            self._complain(owner)
            return
        self._owners[operation_id] = owner
        self._counts[owner] = self._counts.get(owner, 0) + 1

    def end(self, operation_id: str) -> None:
        """Count an operation no more, since it has its outcome."""
        self._submitting.discard(operation_id)
        self._doubtful.discard(operation_id)
        self._remove(operation_id)

    def replace(self, found: Mapping[str, Owner], followed_from: int) -> None:
        """Count these in place of all others but those that are being submitted here.

        Args:
            found: what is open, by all events before `followed_from`.
            followed_from: the stream sequence of the first event that will be seen.
        """
        kept = {one: self._owners[one] for one in self._submitting if one in self._owners and one not in found}
        self._owners, self._counts = {}, {}
        for operation_id, owner in (*kept.items(), *found.items()):
            self.add(operation_id, owner)
        self._submitting, self._doubtful, self._followed_from = set(kept), set(kept), followed_from

    def _remove(self, operation_id: str) -> None:
        owner = self._owners.pop(operation_id, None)
        if owner is None:
            return
        left = self._counts[owner] - 1
        if left:
            self._counts[owner] = left
        else:
            del self._counts[owner]

    def _complain(self, owner: Owner) -> None:
        if not self._has_complained:
            self._has_complained = True
            shown = truncate_text(owner.subject, 80)
            message = "more than %d operations are open: those of %s and of others count no more for a limit"
            logger.warning(message, self._max_tracked, shown)
