"""The runner's own errors, and the exceptions that handlers raise."""

from __future__ import annotations

from collections.abc import Callable


class RunnerError(Exception):
    """Base of the runner's own errors."""


class InvalidAction(RunnerError, ValueError):
    """A handler can't be offered as an action. The message says what to change."""


class UnreadableInput(RunnerError, ValueError):
    """An input that the API accepted is not one of the handler's type. The message is for the client."""


class ActionError(Exception):
    """A handler raises it to fail its operation for good: no other attempt follows.

    Args:
        code: what the client reads as `error.code`: a word of the author's own ("ClientOutOfDate") or an HTTP status.
        message: for a person; cut at 4 KiB.
        target: the part of the input that is at fault, e.g. `files[0].sha256`.
    """

    def __init__(self, code: int | str, message: str, *, target: str = "") -> None:
        # No value is looked at here: an error that could not be made would be another one, and not final.
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.target = target

    def __str__(self) -> str:
        """Return code and message, or that they can't be shown."""
        return _shown(lambda: f"{self.code}: {self.message}")


class RetryAfter(Exception):
    """A handler raises it to fail this attempt and to ask for another one.

    The attempt counts towards `max_attempts`. If it was the last one, the operation is `Failed` with code 503 and this
    message.

    Args:
        seconds: the next attempt starts no earlier; it starts later if the action's backoff says so. With seconds that
            can't be waited for (negative, NaN) the backoff alone counts, and the runner's log names them.
        message: for a person; cut at 4 KiB.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        # No value is looked at here, as in `ActionError`: the author asks for another attempt, not for a code 500.
        super().__init__(seconds, message)
        self.seconds = seconds
        self.message = message

    def __str__(self) -> str:
        """Return seconds and message, or that they can't be shown."""
        return _shown(lambda: f"again in {self.seconds} s: {self.message}")


class FileNotFetched(RunnerError):
    """A file that the client has uploaded can't be had: it is damaged, or there is no room for it here."""


class FileNotAttached(Exception):
    """A file was not added to the operation: it can't be read, the store does not answer, or there are too many."""


class ActionCanceledError(BaseException):
    """Ends a handler that was asked to stop. The operation is then `Canceled`, or released by a shutdown.

    `ActionContext.check_canceled` raises it. A plain handler in a process of its own gets it at any point of its code.
    It is no `Exception`, like `asyncio.CancelledError`: an `except Exception` around a step must not swallow it. If the
    handler was not asked to stop, it is an unexpected error like any other.
    """


def _shown(text: Callable[[], str]) -> str:
    try:
        return text()
    except Exception:  # noqa: BLE001 - an author's value may raise anything
        return "it can't be shown"
