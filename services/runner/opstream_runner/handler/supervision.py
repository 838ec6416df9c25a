"""Supervision of a running handler: the reasons to stop it, the signal that carries them, and the wait for its end.

`supervise` first asks the handler to stop. When the handler's grace is over it forces the handler to stop, as far as
that is possible.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Any, Final, Protocol

from .invocation import UNEXPECTED_ERROR, HandlerOutcome, Raised, Stopped

logger = logging.getLogger(__name__)

_FORCE_STOP_TIMEOUT: Final = 0.5
"""Seconds to wait after the last force before the handler is left behind; a killed process ends within milliseconds."""


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


class RunningHandler(Protocol):
    """A handler that was called."""

    outcome: asyncio.Future[HandlerOutcome]
    """Its outcome. To cancel this future ends it at once, even if the handler continues."""

    def request_stop(self) -> None:
        """Ask the handler to stop. Only the first call has an effect, so that nothing disturbs the clean-up."""
        ...

    def expect_signals(self) -> None:
        """Note that the runner will end soon: the service manager that stops it may signal child processes, too."""
        ...

    def force_stop(self) -> None:
        """Force the handler to stop, as its grace is over."""
        ...


async def supervise(
    handler: RunningHandler, stop_signal: StopSignal, *, cancel_grace: float, stop_grace: float, name: str
) -> HandlerOutcome:
    """Wait until the handler ends, and stop it when the signal says so. Return its outcome.

    For a client's cancel this waits until the handler has ended, however long that takes. For any other reason it
    leaves a handler behind that still runs after its grace and one force, and returns `Stopped(is_left_behind=True)`.

    Args:
        handler: the running handler.
        stop_signal: the attempt's signal; its reason may change.
        cancel_grace: seconds between request and force for `CLEANUP_REASONS`; for a client's cancel also between one
            force and the next.
        stop_grace: the same seconds for all other reasons.
        name: names the handler in the log.
    """
    reason: StopReason | None = None
    grace: float | None = None
    elapsed = 0.0
    while not handler.outcome.done():
        if stop_signal.reason is not reason:
            reason = stop_signal.reason
            grace = cancel_grace if reason in CLEANUP_REASONS else stop_grace
            elapsed = 0.0
            handler.request_stop()
        if await stop_signal.wait(handler.outcome, grace) or grace is None:
            continue
        elapsed += grace
        handler.force_stop()
        if reason is not StopReason.CANCEL:
            await asyncio.wait([handler.outcome], timeout=_FORCE_STOP_TIMEOUT)
            break
        logger.warning("%s was asked to stop %g s ago and still runs", name, elapsed)
    if not handler.outcome.done():
        logger.warning("%s did not stop within %g s and is left behind", name, grace)
        return Stopped(is_left_behind=True)
    if handler.outcome.cancelled():
        # Either this module cancelled the task, or the handler cancelled its own task.
        return Stopped() if stop_signal.reason is not None else Raised(UNEXPECTED_ERROR, is_meant=False)
    return handler.outcome.result()
