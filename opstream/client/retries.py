"""Whether to ask again, when, and for how long. Pure; called by the flows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from opstream_schemas.status_monitor import ErrorBody, ErrorObject

from .errors import told_error, told_status
from .steps import NoReply, Reply

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_DOUBLINGS: Final = 10
_BUSY: Final = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that ask for another try, whoever answers with them."""
_NEVER: Final = frozenset({501, 505})
_SECONDS: Final = re.compile(r"[0-9]{1,9}")

_error_body: Final = msgspec.json.Decoder(ErrorBody)


class Patience:
    """The time that one call has, and the pauses between its tries.

    Pauses double from 0.2 to 5 seconds and are randomised by half, so that many clients do not come back in step; what
    the service asks for in `Retry-After` comes on top.

    Args:
        seconds: of the whole call; None for no end.
        clock: monotonic seconds.
        jitter: draws from [0, 1).

    Attributes:
        seconds: of the whole call; infinite for no end.
    """

    def __init__(self, seconds: float | None, *, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._clock = clock
        self._jitter = jitter
        self._begin = clock()
        self._tries = 0

    def left(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self._begin + self.seconds - self._clock())

    def pause(self, retry_after: float | None) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(_LONGEST_PAUSE, _FIRST_PAUSE * float(1 << min(self._tries, _DOUBLINGS)))
        self._tries += 1
        return (retry_after or 0.0) + ceiling * (1 + self._jitter()) / 2

    def answered(self) -> None:
        """There is progress: pauses begin short again."""
        self._tries = 0

    def extend(self) -> None:
        """There is a sign of life: the time of the call begins anew."""
        self._begin = self._clock()


def is_transient(outcome: Reply | NoReply) -> bool:
    """Whether the same request may be answered otherwise a little later.

    A 5xx without opstream's error body is a proxy's, and says that there is no service behind it at the moment; with
    that body it is the service's own word on this request.
    """
    if isinstance(outcome, NoReply) or outcome.status in _BUSY:
        return True
    return outcome.status >= 500 and outcome.status not in _NEVER and error_of(outcome) is None


def error_of(reply: Reply) -> ErrorObject | None:
    """The error body of an answer, if it has one (contract.md, Errors)."""
    try:
        return _error_body.decode(reply.content).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def told(outcome: Reply | NoReply) -> str:
    """What came instead of a useful answer, in one line."""
    if isinstance(outcome, NoReply):
        return outcome.reason
    error = error_of(outcome)
    return f"{told_status(outcome.status)}{f', {told_error(error)}' if error else ''}"


def retry_after(outcome: Reply | NoReply) -> float | None:
    """Seconds that an answer asks to wait (RFC 9110: seconds or a date); None if it does not."""
    if isinstance(outcome, NoReply):
        return None
    value = outcome.headers.get("Retry-After", "").strip()
    return float(value) if _SECONDS.fullmatch(value) else _until(value, outcome.headers)


def _until(value: str, headers: Mapping[str, str]) -> float | None:
    # Both dates are the server's, so that it does not matter whose clock is wrong.
    try:
        moment, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
