"""Whether runners take what is submitted. An action stays in the catalog, and is accepted, after its last runner.

For the log a submit only notes its action, and at most once a minute for each action `WaitingReasons` looks at its
runners. For the answer to a submit what was found is kept for some seconds, so that a submit of an action with runners
waits for nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from opstream_journal import Connection, JournalError, JournalUnavailable
from opstream_journal.outage_log import OutageLog
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import BlockedBy

from .waiting_reasons import WaitingReasons, unserved

logger = logging.getLogger(__name__)

CHECK_INTERVAL: Final = 60.0
"""Seconds between two checks of one action."""
SECOND_LOOK: Final = 5.0
"""Seconds after which a runner that was not found is looked for once more: one that restarts is away for that long."""
_SERVED_SECONDS: Final = 5.0
"""For how long an action that has runners is taken for one; then the next submit causes a look in the background."""
_STALE_SECONDS: Final = 10.0
"""For how long that submit still takes it for one. After a longer quiet time it waits for the look."""
_LOOK_TIMEOUT: Final = 0.5
"""Seconds that a submit waits for a look at most; then its answer says nothing of runners."""


class RunnerPresence:
    """Knows about actions that are submitted while no runner takes them: for the log, and for answers to submits.

    Args:
        connection: the connection to the broker.
        reasons: look at the runners of actions.
        clock: monotonic seconds.
    """

    def __init__(self, connection: Connection, reasons: WaitingReasons, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._reasons = reasons
        self._clock = clock
        self._due: dict[Kind, float] = {}
        """When an action is to be checked again, on the clock."""
        self._outages: dict[Kind, OutageLog] = {}
        self._served: dict[tuple[Kind, int], float] = {}
        """When an action, in a version, was found to have a runner, on the clock."""
        self._checks: set[asyncio.Task[object]] = set()

    async def unserved(self, spec: ActionSpec) -> BlockedBy | None:
        """Return why no runner takes a new operation of an action; None if one does, or it is not known.

        It waits for nothing while the action is submitted every now and then and has runners.
        """
        key = (spec.kind, spec.action_version)
        age = self._clock() - self._served.get(key, float("-inf"))
        if age < _SERVED_SECONDS:
            return None
        if age < _STALE_SECONDS:
            self._served[key] += _SERVED_SECONDS  # so that only this submit causes the look
            self._run(self._look(spec), f"runners of {spec.kind}, for submits")
            return None
        return await self._look(spec)

    async def _look(self, spec: ActionSpec) -> BlockedBy | None:
        key = (spec.kind, spec.action_version)
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT):
                found = unserved(await self._reasons.look(spec.kind), spec.action_version)
        except (TimeoutError, JournalError) as error:
            logger.debug("the runners of %s can't be looked for: %s", spec.kind, error)
            return None
        if found is None:
            self._served[key] = self._clock()
        else:
            self._served.pop(key, None)
        return found

    def note_submit(self, kind: Kind) -> None:
        """Note that an action was accepted. Waits for nothing."""
        now = self._clock()
        if now < self._due.get(kind, 0.0):
            return
        self._due[kind] = now + CHECK_INTERVAL
        self._run(self._check(kind), f"runners of {kind}")

    def _run(self, work: Coroutine[Any, Any, object], name: str) -> None:
        check = asyncio.create_task(work, name=name)
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
            waiting = await self._count_untaken(kind, is_fresh=False)
            if waiting is not None:
                await self._connection.sleep(SECOND_LOOK)
                waiting = await self._count_untaken(kind, is_fresh=True)
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

    async def _count_untaken(self, kind: Kind, *, is_fresh: bool) -> int | None:
        """Return how many messages wait for a runner; None if there is a runner."""
        look = await self._reasons.look(kind, is_fresh=is_fresh)
        return look.consumer.num_pending if look.has_no_runner else None
