"""Errors of the runner, and those that handlers raise."""

from __future__ import annotations

from math import inf


class RunnerError(Exception):
    """Base of the runner's own errors."""


class InvalidAction(RunnerError, ValueError):
    """A handler can't be offered as an action; the message says what to change."""


class HandlerNotStarted(RunnerError):
    """The process for an attempt could not be started, or ended before the handler was called."""


class ActionError(Exception):
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


class RetryAfter(Exception):
    """Raised by a handler: this attempt failed, and another may succeed.

    It counts towards `max_attempts`: if it was the last one, the operation is `Failed` with code 503 and this message.

    Args:
        seconds: the next attempt begins no sooner; later, if the action's backoff says so.
        message: for a person; cut at 4 KiB.

    Raises:
        ValueError: seconds are negative or no finite number.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(f"again in {seconds} s: {message}")
        if not 0 <= seconds < inf:
            raise ValueError(f"RetryAfter takes 0 or more seconds, not {seconds!r}")
        self.seconds = seconds
        self.message = message


class ActionCanceledError(BaseException):
    """Ends a handler that was asked to stop: the operation is `Canceled`, or goes on elsewhere if the runner stops.

    Raised by `ActionContext.check_canceled`, and in the middle of a plain handler that has a process of its own. Not an
    `Exception`, as `asyncio.CancelledError` is none: an `except Exception` around a step must not swallow it. Raised
    by a handler that nobody asked to stop it is an error like any other.
    """
