"""Whether to try again, when, and for how long. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from opstream_schemas.status_monitor import ErrorBody, ErrorObject

from .errors import describe_error, describe_status
from .io_requests import NoResponse, ServiceResponse

_FIRST_PAUSE: Final = 0.2
_MAX_PAUSE: Final = 5.0
_MAX_DOUBLINGS: Final = 10
_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses after which another try may succeed, from the service or from a proxy."""
_FINAL_STATUSES: Final = frozenset({501, 505})
_SECONDS_PATTERN: Final = re.compile(r"[0-9]{1,9}")

_error_decoder: Final = msgspec.json.Decoder(ErrorBody)


class RetryBudget:
    """The time of one call, and the pauses between its tries.

    Pauses double from 0.2 to 5 seconds. Up to half of each is random, so that many clients do not return at the same
    moment. The seconds of `Retry-After` are added.

    Args:
        seconds: of the whole call; None for no limit.
        clock: monotonic seconds.
        jitter: draws from [0, 1).

    Attributes:
        seconds: of the whole call; infinite for no limit.
    """

    def __init__(self, seconds: float | None, *, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._clock = clock
        self._jitter = jitter
        self._begin = clock()
        self._tries = 0

    def remaining(self) -> float:
        """Seconds until the call's timeout; never negative."""
        return max(0.0, self._begin + self.seconds - self._clock())

    def next_pause(self, retry_after: float | None) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(_MAX_PAUSE, _FIRST_PAUSE * float(1 << min(self._tries, _MAX_DOUBLINGS)))
        self._tries += 1
        return (retry_after or 0.0) + ceiling * (1 + self._jitter()) / 2

    def reset_pauses(self) -> None:
        """After progress: the next pause is the shortest again."""
        self._tries = 0

    def restart(self) -> None:
        """After a sign of life: the call has its full time again."""
        self._begin = self._clock()


def is_transient(outcome: ServiceResponse | NoResponse) -> bool:
    """Return True if the same request may succeed a little later.

    A 5xx without opstream's error body comes from a proxy that does not reach the service. With that body, the service
    itself has failed on this request.
    """
    if isinstance(outcome, NoResponse) or outcome.status in _RETRYABLE_STATUSES:
        return True
    return outcome.status >= 500 and outcome.status not in _FINAL_STATUSES and parse_error(outcome) is None


def parse_error(response: ServiceResponse) -> ErrorObject | None:
    """The error body of a response; None if it has none (docs/contract.md, Errors)."""
    try:
        return _error_decoder.decode(response.content).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def describe_outcome(outcome: ServiceResponse | NoResponse) -> str:
    """What came instead of a usable response, in one line."""
    if isinstance(outcome, NoResponse):
        return outcome.reason
    error = parse_error(outcome)
    return f"{describe_status(outcome.status)}{f', {describe_error(error)}' if error else ''}"


def retry_after(outcome: ServiceResponse | NoResponse) -> float | None:
    """Seconds of the header `Retry-After` (RFC 9110: seconds or a date); None without a valid one."""
    if isinstance(outcome, NoResponse):
        return None
    value = outcome.headers.get("Retry-After", "").strip()
    return float(value) if _SECONDS_PATTERN.fullmatch(value) else _seconds_until(value, outcome.headers)


def _seconds_until(value: str, headers: Mapping[str, str]) -> float | None:
    # Both dates are the server's, so the client's clock does not matter.
    try:
        moment, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
