"""Errors of the runner, and those that handlers raise."""

from __future__ import annotations


class RunnerError(Exception):
    """Base of the runner's own errors."""


class InvalidAction(RunnerError, ValueError):
    """A handler can't be offered as an action; the message says what to change."""


class AttemptNotBegun(RunnerError):
    """The process for an attempt could not be started, or ended before the handler was called."""


class ActionFailed(Exception):
    """Raised by a handler: the operation is `Failed`, for good.

    Args:
        code: what the client reads as `error.code`: a word of the author's own ("ClientOutOfDate") or an HTTP status.
        message: for a person; cut at 4 KiB.
        target: which part of the input is to blame, e.g. `files[0].sha256`.
    """

    def __init__(self, code: int | str, message: str, *, target: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.target = target


class ActionCanceled(BaseException):
    """Ends a handler that was asked to stop: the operation is `Canceled`, or goes on elsewhere if the runner stops.

    Raised by `ActionContext.check_canceled`, and in the middle of a plain handler that has a process of its own. Not an
    `Exception`, as `asyncio.CancelledError` is none: an `except Exception` around a step must not swallow it. Raised
    by a handler that nobody asked to stop it is an error like any other.
    """
