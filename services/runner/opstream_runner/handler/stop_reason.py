"""Why a running handler has to stop. Callers: `attempt.py`, which gives the verdict, and `work.py`, which heeds it."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Final


class StopReason(Enum):
    """A reason to stop, as the log tells it."""

    LEASE_LOST = "a later attempt or a terminal event was recorded"
    LEASE_UNVERIFIED = "the journal could not be read for longer than the lease"
    CANCEL = "a client asked to cancel"
    TIMEOUT = "it took longer than its timeout"
    DEADLINE = "the deadline of its operation has passed"
    SHUTDOWN = "the runner stops"

    def outweighs(self, other: StopReason | None) -> bool:
        """Whether this one counts although `other` came first.

        Who is fenced off must be silent, whatever else holds; who is blind must not hand back what may be another's;
        and a process that stops does not wait for a handler that a client canceled, nor for one whose time is over.
        A canceled handler, too, has no more time than the action gives it.
        """
        return other is None or _PRIORITY[self] > _PRIORITY[other]


CLEANUP_REASONS: Final = frozenset({StopReason.CANCEL, StopReason.TIMEOUT, StopReason.DEADLINE})
"""Where the handler has the action's own grace for its clean-up: this runner goes on, and the operation is its own."""
_BY_PRIORITY: Final = (
    StopReason.CANCEL,
    StopReason.TIMEOUT,
    StopReason.DEADLINE,
    StopReason.SHUTDOWN,
    StopReason.LEASE_UNVERIFIED,
    StopReason.LEASE_LOST,
)
_PRIORITY: Final = {verdict: weight for weight, verdict in enumerate(_BY_PRIORITY)}


class StopSignal:
    """What was decided about one attempt.

    Attributes:
        verdict: the weightiest so far; set in the event loop, read from any thread.
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self, verdict: StopReason) -> None:
        """Take a verdict into account."""
        if verdict.outweighs(self.reason):
            self.reason = verdict
            if not self._changed.done():
                self._changed.set_result(None)

    async def wait(self, other: asyncio.Future[Any], seconds: float | None) -> bool:
        """Wait until the verdict changes or `other` is done; false if `seconds` passed without either."""
        done, _ = await asyncio.wait([other, self._changed], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return bool(done)
