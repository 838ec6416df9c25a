"""What `ActionContext.wait_for` raises."""

from __future__ import annotations

from opstream_runner.errors import ActionError
from opstream_schemas.errors import ErrorCode


class InvalidWait(ActionError):
    """The action waits wrongly: a name twice, a type without a schema, approvers that nobody can tell apart.

    Args:
        why: for the author; the client reads only that it is so.
    """

    def __init__(self, why: str) -> None:
        super().__init__(ErrorCode.INVALID_WAIT, "the action waits wrongly; the runner's log has the details")
        self.why = why

    def __str__(self) -> str:
        """Return what the author has to mend."""
        return self.why


class WaitTimedOut(ActionError):
    """The signal has not come in time, and never will: each later attempt gets the same.

    Uncaught, it fails the operation.

    Args:
        name: of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(ErrorCode.WAIT_TIMED_OUT, f"the signal {name!r} has not come in time", target=name)
