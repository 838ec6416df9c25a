"""Looks what the broker has lost when a process starts and after each lost connection; a `ServiceLoop`.

A broker that cuts a damaged stream has restarted before, so its clients lost their connection. A journal that is
deleted and made again, or restored, is noticed by `BrokerMonitor` (`Conditions.on_doubt`). What is found becomes a
condition of the process: an error in its log and a member of `/readyz`. The process goes on (docs/adr/0032).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from opstream_journal.errors import JournalError
from opstream_journal.jetstream.connection import Connection
from opstream_journal.outage_log import OutageLog
from opstream_journal.runtime.conditions import Conditions

from .journal_witnesses import CONSEQUENCES, cut_streams, sample_evidence

logger = logging.getLogger(__name__)

CONDITION: Final = "JournalSetback"
CUT_CONDITION: Final = "StreamsCut"
_NEXT_STEP: Final = (
    "run 'opstream verify', which says what is gone and the next steps: what only the view has is saved before the "
    "journal is restored from a backup or a replica (docs/running.md, When the journal has lost events)"
)
_CUT_NEXT_STEP: Final = "run 'opstream verify', and look at the broker's log and its disk"
_SETTLING_TIME: Final = 10.0
"""Seconds before a second look: for a moment a new leader, or a former one, may have less than there is."""


class SetbackWatch:
    """The watch of one process.

    Args:
        connection: the connection.
        conditions: of the process.
        now: the time, with zone.
        on_look: called after each look, with True if the journal has a setback.
        settling_time: see `_SETTLING_TIME`.
    """

    def __init__(
        self,
        connection: Connection,
        conditions: Conditions,
        *,
        now: Callable[[], datetime],
        on_look: Callable[[bool], None] = lambda _: None,
        settling_time: float = _SETTLING_TIME,
    ) -> None:
        self._connection = connection
        self._conditions = conditions
        self._now = now
        self._on_look = on_look
        self._settling_time = settling_time
        self._outage = OutageLog(
            logger,
            "whether the journal has lost events can't be read now",
            "whether the journal has lost events can be read again",
        )
        self._is_due = asyncio.Event()
        self._cut: dict[str, int] = {}
        """Other streams that the broker has cut, as of the last look, with bytes."""

    @property
    def is_ready(self) -> bool:
        """Return True: a process does its job without this watch, too."""
        return True

    async def run(self) -> None:
        """Look now, after each lost connection, and when the journal is another one, until cancelled."""
        self._conditions.on_doubt(self._is_due.set)
        self._connection.on_reconnect(self._is_due.set)
        try:
            while True:
                self._is_due.clear()
                await self._look()
                await self._is_due.wait()
        finally:
            self._connection.remove_reconnect_callback(self._is_due.set)

    async def _look(self) -> None:
        found = await self._read_proof()
        if found:
            await self._connection.sleep(self._settling_time)
            found = await self._read_proof()
        if not found and (self._is_due.is_set() or not self._connection.is_connected):
            return  # the connection was lost meanwhile, so nothing is known before the next look
        self._on_look(bool(found))
        if found:
            self._conditions.report(CONDITION, f"the journal has lost events: {found}", _NEXT_STEP, level=logging.ERROR)
        else:
            self._conditions.resolve(CONDITION)
        if self._cut:
            streams = "; ".join(f"{stream}: {CONSEQUENCES[stream]}" for stream in self._cut)
            what = f"the broker has cut damaged blocks of other streams ({streams})"
            self._conditions.report(CUT_CONDITION, what, _CUT_NEXT_STEP, level=logging.ERROR)
        else:
            self._conditions.resolve(CUT_CONDITION)

    async def _read_proof(self) -> str:
        """Return what proves a setback, in one line; empty if nothing does. Wait for a broker that is away."""
        while True:
            try:
                evidence = await sample_evidence(self._connection, self._now())
                self._cut = await cut_streams(self._connection)
            except JournalError as error:
                self._outage.failed(error)
                await self._connection.sleep(self._settling_time)
            else:
                self._outage.recovered()
                return "; ".join(line.strip() for line in evidence.lines())
