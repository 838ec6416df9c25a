"""How a wait ends an attempt: an exception that unwinds the handler."""

from __future__ import annotations

from opstream_schemas.events import WaitBegun


class AttemptSuspended(BaseException):
    """Ends a handler whose operation waits. Another attempt goes on behind the wait.

    `ActionContext.sleep` raises it. It is no `Exception`, so that an `except Exception` does not swallow it.

    Args:
        wait: what is recorded.
    """

    def __init__(self, wait: WaitBegun) -> None:
        super().__init__(wait.wait)
        self.wait = wait


def suspend(wait: WaitBegun) -> None:
    """End the attempt.

    Raises:
        AttemptSuspended: always.
    """
    raise AttemptSuspended(wait)
