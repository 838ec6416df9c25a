"""The reasons to stop a running handler, and the signal that carries the strongest of them to it."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Final


class StopReason(Enum):
    """Why a handler has to stop. The value is the text for the log."""

    LEASE_LOST = "a later attempt or a terminal event was recorded"
    LEASE_UNVERIFIED = "the journal could not be read for longer than the lease"
    CANCEL = "a client asked to cancel"
    TIMEOUT = "it took longer than its timeout"
    DEADLINE = "the deadline of its operation has passed"
    SHUTDOWN = "the runner stops"

    def outweighs(self, other: StopReason | None) -> bool:
        """Return True if this reason replaces `other`.

        - LEASE_LOST replaces every other reason: the attempt must not record anything.
        - LEASE_UNVERIFIED replaces SHUTDOWN: an operation that may be another runner's must not be released.
        - SHUTDOWN replaces the client's and the clocks' reasons: a process that ends does not wait for their grace.
        - TIMEOUT and DEADLINE replace CANCEL: a canceled handler has no more time than its action gives it.
        """
        return other is None or _PRIORITY[self] > _PRIORITY[other]


CLEANUP_REASONS: Final = frozenset({StopReason.CANCEL, StopReason.TIMEOUT, StopReason.DEADLINE})
"""Reasons that leave the handler the action's `cancel_grace` for its clean-up: the runner continues, with its lease."""
_BY_PRIORITY: Final = (
    StopReason.CANCEL,
    StopReason.TIMEOUT,
    StopReason.DEADLINE,
    StopReason.SHUTDOWN,
    StopReason.LEASE_UNVERIFIED,
    StopReason.LEASE_LOST,
)
_PRIORITY: Final = {reason: priority for priority, reason in enumerate(_BY_PRIORITY)}


class StopSignal:
    """Whether, and why, the handler of one attempt has to stop.

    Attributes:
        reason: the strongest reason so far; None while the handler may run. The event loop writes it, any thread may
            read it.
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self, reason: StopReason) -> None:
        """Set the reason, unless one of the same or a higher priority is set."""
        if reason.outweighs(self.reason):
            self.reason = reason
            if not self._changed.done():
                self._changed.set_result(None)

    async def wait(self, other: asyncio.Future[Any], seconds: float | None) -> bool:
        """Wait until the reason changes or `other` is done. Return False if neither happened within `seconds`."""
        done, _ = await asyncio.wait([other, self._changed], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return bool(done)
