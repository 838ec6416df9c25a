"""Whether runners take what is submitted. An action stays in the catalog, and is accepted, after its last runner.

A submit only notes its action. At most once a minute for each action that is submitted, the broker is asked for the
action's consumer: a runner with a free slot has a pull request that waits there, a busy one has messages in work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from opstream_journal import Connection, JournalUnavailable
from opstream_journal.outage_log import OutageLog
from opstream_schemas.names import Kind

from .waiting_reasons import read_consumer

logger = logging.getLogger(__name__)

CHECK_INTERVAL: Final = 60.0
"""Seconds between two checks of one action."""
SECOND_LOOK: Final = 5.0
"""Seconds after which a runner that was not found is looked for once more: one that restarts is away for that long."""


class RunnerPresence:
    """Warns about actions that are submitted while no runner takes them.

    It can't tell a runner that was killed in the middle of an attempt from a busy one, and says nothing then.

    Args:
        connection: the connection to the broker.
        clock: monotonic seconds.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._due: dict[Kind, float] = {}
        """When an action is to be checked again, on the clock."""
        self._outages: dict[Kind, OutageLog] = {}
        self._checks: set[asyncio.Task[None]] = set()

    def note_submit(self, kind: Kind) -> None:
        """Note that an action was accepted. Waits for nothing."""
        now = self._clock()
        if now < self._due.get(kind, 0.0):
            return
        self._due[kind] = now + CHECK_INTERVAL
        check = asyncio.create_task(self._check(kind), name=f"runners of {kind}")
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def stop(self) -> None:
        """End the checks that are under way."""
        for check in self._checks:
            check.cancel()
        if self._checks:
            await asyncio.wait(self._checks)

    async def _check(self, kind: Kind) -> None:
        try:
            waiting = await self._count_untaken(kind)
            if waiting is not None:
                await self._connection.sleep(SECOND_LOOK)
                waiting = await self._count_untaken(kind)
        except JournalUnavailable as error:
            logger.debug("the runners of %s can't be looked for: %s", kind, error)
            return
        outage = self._outages.get(kind)
        if waiting is None:
            if outage is not None:
                outage.recovered()
            return
        if outage is None:
            outage = self._outages[kind] = OutageLog(
                logger, f"{kind} is submitted, and no runner takes it", f"a runner takes {kind}", clock=self._clock
            )
        outage.failed(
            f"its operations ({waiting} so far) are NotStarted until 'opstream runner --actions …' runs with its "
            "module, or their deadline has passed"
        )

    async def _count_untaken(self, kind: Kind) -> int | None:
        """Return how many messages wait for a runner; None if there is a runner."""
        found = await read_consumer(self._connection, kind)
        return None if found is None or found.num_waiting or found.num_ack_pending else found.num_pending
