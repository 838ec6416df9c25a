"""What failing heartbeats write to the log: one outage, however many operations of the process it touches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from opstream_journal.outage_log import OutageLog, SharedOutageLog

logger = logging.getLogger(__name__)


class HeartbeatLog:
    """The heartbeats of all attempts of one process.

    A warning when the first one fails, a warning when the first lease is given up, each again after 30 s with a count,
    and a line at INFO for each when heartbeats work again. What happens to the other operations is at DEBUG.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._outage = SharedOutageLog(logger, "a heartbeat fails", "heartbeats work again", clock=clock)
        self._leases = OutageLog(
            logger,
            "a lease is given up and its handler stopped, so another runner may take the operation over",
            "leases are kept again",
            clock=clock,
        )

    def failed(self, operation_id: str, reason: object) -> None:
        """Note that the heartbeat of an operation failed."""
        self._outage.failed(f"operation {operation_id}", reason)

    def gave_up(self, operation_id: str, seconds: float) -> None:
        """Note that the lease of an operation was given up, after `seconds` without a heartbeat."""
        self._leases.failed(f"operation {operation_id}: no heartbeat for {seconds:.3g} s")

    def works(self, operation_id: str) -> None:
        """Note that the heartbeat of an operation works."""
        self._outage.recovered(f"operation {operation_id}")
        if not self._outage.is_failing:
            self._leases.recovered()

    def forget(self, operation_id: str) -> None:
        """Note that an attempt is over, however it ended."""
        self._outage.forget(f"operation {operation_id}")
