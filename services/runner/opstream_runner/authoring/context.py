"""What a handler knows about the operation that it works for. Light on purpose, as `actions.py` is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Final

from opstream_runner.errors import ActionCanceledError

ProgressReporter = Callable[[float, str], Awaitable[None]]


class _CompletedAwaitable:
    def __await__(self) -> Generator[None, None, None]:
        yield from ()


COMPLETED: Final[Awaitable[None]] = _CompletedAwaitable()
"""An awaitable that is over."""


def discard_progress(_percent: float, _message: str) -> Awaitable[None]:
    """Where progress goes in a unit test."""
    return COMPLETED


def never_canceled() -> bool:
    """Whether a unit test's attempt should stop."""
    return False


class ActionContext:
    """What a handler knows about the operation that it works for. A unit test makes its own.

    Attributes:
        operation_id: the operation, the same over all attempts: a key for idempotent work.
        resource_id: the resource's own id from the URL; empty for `POST /resource:action`.
        attempt: 1 for the first; more after one that failed, or whose runner was lost or stopped.
        traceparent: W3C Trace Context of the request, empty without one; pass it on to what the action calls.
    """

    def __init__(
        self,
        *,
        operation_id: str,
        resource_id: str = "",
        attempt: int = 1,
        traceparent: str = "",
        report: ProgressReporter = discard_progress,
        cancel_requested: Callable[[], bool] = never_canceled,
    ) -> None:
        self.operation_id = operation_id
        self.resource_id = resource_id
        self.attempt = attempt
        self.traceparent = traceparent
        self._report = report
        self._cancel_requested = cancel_requested

    @property
    def cancel_requested(self) -> bool:
        """Whether this attempt should stop: a client canceled, its time is over, the runner stops, or another attempt
        took over.

        Costs next to nothing and may be asked from any thread. Once true it stays true. What a unit test passes as
        `cancel_requested` is called for it, e.g. `threading.Event().is_set`.
        """
        return self._cancel_requested()

    def check_canceled(self) -> None:
        """Stop here if this attempt should stop: the place for it is between two steps of a plain handler.

        Raises:
            ActionCanceledError: `cancel_requested` is true. Let it pass; clean up in `finally`.
        """
        if self._cancel_requested():
            raise ActionCanceledError(f"attempt {self.attempt} of operation {self.operation_id} was asked to stop")

    def progress(self, percent: float, message: str = "") -> Awaitable[None]:
        """Tell how far the action is. Cheap to call often: at most one event per percent or 10 seconds is recorded.

        An async handler awaits it, and so lets others run; a plain one, in its thread, just calls it. While the
        broker is away progress is dropped rather than the action delayed.

        Args:
            percent: 0 to 100.
            message: for a person; cut at 4 KiB.

        Raises:
            ValueError: percent is out of range.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"progress must lie between 0 and 100 percent, not {percent}")
        return self._report(float(percent), message)
