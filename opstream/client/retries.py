"""Whether to ask again, when, and for how long. Pure; called by the flows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from opstream_schemas.status_monitor import ErrorBody, ErrorObject

from .errors import describe_error, describe_status
from .steps import NoResponse, ServiceResponse

_FIRST_PAUSE: Final = 0.2
_MAX_PAUSE: Final = 5.0
_MAX_DOUBLINGS: Final = 10
_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that ask for another try, whoever answers with them."""
_FINAL_STATUSES: Final = frozenset({501, 505})
_SECONDS_PATTERN: Final = re.compile(r"[0-9]{1,9}")

_error_decoder: Final = msgspec.json.Decoder(ErrorBody)


class RetryBudget:
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

    def remaining(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self._begin + self.seconds - self._clock())

    def next_pause(self, retry_after: float | None) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(_MAX_PAUSE, _FIRST_PAUSE * float(1 << min(self._tries, _MAX_DOUBLINGS)))
        self._tries += 1
        return (retry_after or 0.0) + ceiling * (1 + self._jitter()) / 2

    def reset_pauses(self) -> None:
        """There is progress: pauses begin short again."""
        self._tries = 0

    def restart(self) -> None:
        """There is a sign of life: the time of the call begins anew."""
        self._begin = self._clock()


def is_transient(outcome: ServiceResponse | NoResponse) -> bool:
    """Whether the same request may be answered otherwise a little later.

    A 5xx without opstream's error body is a proxy's, and says that there is no service behind it at the moment; with
    that body it is the service's own word on this request.
    """
    if isinstance(outcome, NoResponse) or outcome.status in _RETRYABLE_STATUSES:
        return True
    return outcome.status >= 500 and outcome.status not in _FINAL_STATUSES and parse_error(outcome) is None


def parse_error(reply: ServiceResponse) -> ErrorObject | None:
    """The error body of an answer, if it has one (contract.md, Errors)."""
    try:
        return _error_decoder.decode(reply.content).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def describe_outcome(outcome: ServiceResponse | NoResponse) -> str:
    """What came instead of a useful answer, in one line."""
    if isinstance(outcome, NoResponse):
        return outcome.reason
    error = parse_error(outcome)
    return f"{describe_status(outcome.status)}{f', {describe_error(error)}' if error else ''}"


def retry_after(outcome: ServiceResponse | NoResponse) -> float | None:
    """Seconds that an answer asks to wait (RFC 9110: seconds or a date); None if it does not."""
    if isinstance(outcome, NoResponse):
        return None
    value = outcome.headers.get("Retry-After", "").strip()
    return float(value) if _SECONDS_PATTERN.fullmatch(value) else _seconds_until(value, outcome.headers)


def _seconds_until(value: str, headers: Mapping[str, str]) -> float | None:
    # Both dates are the server's, so that it does not matter whose clock is wrong.
    try:
        moment, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
