"""Compares every entry of the view with the fold of the journal, while the system works, and changes nothing.

Caller: the command. What differs is read again from the leaders before it is told. An entry that is only behind is the
projector's to bring up to date; it is told once the projector says that it is done, or has had time enough.
See docs/adr/0017.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from opstream_journal.stores.snapshots import Snapshot, projected
from opstream_projector.deadlines import RecentIds
from opstream_projector.projection.snapshot_fold import supersedes

from .entry_check import Difference, Look, Looker, describe, is_wrong
from .journal_fold import Folded
from .retry import together
from .view_scan import Named, Sweep, is_right

GRACE: Final = 40.0
"""Seconds for which the projector may be behind: longer than its consumer's ack_wait (30 s), since what a killed
replica held comes to another one only then. Once that was too little, it is not waited for again."""

_LOOKERS: Final = 32
_MISSING: Final = 10_000
_FIRST_REST: Final = 0.1
_LONGEST_REST: Final = 1.0


class Verify:
    """Compares and tells; a `Judge`.

    Args:
        looker: looks at what seems to differ.
        tell: is given each difference.
        tell_lag: is told how many operations of a batch are behind, again and again while it waits for the projector.
        now: the time, with zone.
        grace: see `GRACE`.
    """

    def __init__(
        self,
        looker: Looker,
        *,
        tell: Callable[[Difference], None],
        tell_lag: Callable[[int], None],
        now: Callable[[], datetime],
        grace: float = GRACE,
    ) -> None:
        self._looker = looker
        self._tell = tell
        self._tell_lag = tell_lag
        self._now = now
        self._grace = grace
        self._lookers = asyncio.Semaphore(_LOOKERS)
        self._missing = RecentIds(_MISSING)
        self.differences = 0
        self.behind = 0
        """Differences that were only the projector's lag, which lasted."""
        self.unfoldable = Named()

    async def compare(self, batch: Sequence[Folded], sweep: Sweep) -> None:
        """See `Judge`."""
        ids = [one.operation_id for one in batch]
        snapshots = await sweep.patiently(lambda: sweep.snapshots.get(ids))
        now = self._now()
        suspects: list[str] = []
        for folded in batch:
            snapshot, operation = snapshots.get(folded.operation_id), folded.operation
            if snapshot is not None and snapshot.revision in sweep.marks:
                continue
            if operation is None or not is_right(folded, operation, snapshot, now, sweep):
                suspects.append(folded.operation_id)
        await self._confirm(suspects, sweep)

    async def check(self, snapshots: Sequence[Snapshot], sweep: Sweep) -> None:
        """See `Judge`."""
        await self._confirm([one.operation_id for one in snapshots], sweep)

    async def _confirm(self, suspects: Sequence[str], sweep: Sweep) -> None:
        await self._watch(await self._wrong(suspects, sweep), sweep)

    async def _watch(self, looks: dict[str, Look], sweep: Sweep) -> None:
        """Look again and again, as long as the projector has time, and tell what stays wrong."""
        clock = asyncio.get_running_loop().time
        until, rest = clock() + self._grace, _FIRST_REST
        while looks:
            await sweep.link.rest(rest)
            # In this order: what the projector says to be done is to be seen then.
            floor = await sweep.patiently(lambda: projected(sweep.link))
            looks = await self._wrong(looks, sweep)
            behind = {one: look for one, look in looks.items() if _is_behind(look, floor)}
            if behind and clock() >= until:
                self._grace = 0.0
            is_over = not self._grace
            for operation_id, look in looks.items():
                if operation_id not in behind or is_over:
                    self._count(operation_id, look, sweep, is_behind=operation_id in behind)
            if is_over:
                return
            if behind:
                self._tell_lag(len(behind))
            looks, rest = behind, min(rest * 2, _LONGEST_REST)

    async def _wrong(self, operation_ids: Iterable[str], sweep: Sweep) -> dict[str, Look]:
        """Those of them whose entries are not what they should be, by the leaders."""
        found: dict[str, Look] = {}

        async def look(operation_id: str) -> None:
            look = await sweep.patiently(lambda: self._looker.look(operation_id))
            if look.problem:
                self.unfoldable.add(operation_id, look.problem)
            if is_wrong(look, self._now()):
                found[operation_id] = look
            elif look.snapshot is not None:
                sweep.marks.add(look.snapshot.revision)

        await together([functools.partial(look, one) for one in dict.fromkeys(operation_ids)], self._lookers)
        return found

    def _count(self, operation_id: str, look: Look, sweep: Sweep, *, is_behind: bool) -> None:
        if look.snapshot is not None:
            sweep.marks.add(look.snapshot.revision)  # once is enough
        elif operation_id in self._missing:
            return
        else:
            self._missing.add(operation_id)
        self.differences += 1
        self.behind += is_behind
        self._tell(Difference(operation_id, describe(look.snapshot, look.operation)))


def _is_behind(look: Look, floor: int) -> bool:
    """Whether the entry only lacks what the projector has not come to yet: it has written all up to `floor`."""
    operation, stored = look.operation, look.snapshot.operation if look.snapshot is not None else None
    if operation is None or operation.stream_sequence <= floor or (look.snapshot is not None and stored is None):
        return False
    return supersedes(operation, stored)
