"""Counts the events of the last minute, by action and kind of event. Pure."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

import msgspec

from opstream_schemas.events import AttemptFailed, Canceled, Failed, Requested, Succeeded

WINDOW: Final = 60.0
"""Seconds that are counted."""

_COUNTED: Final = frozenset(data.name for data in (Requested, AttemptFailed, Succeeded, Failed, Canceled))


class RecentNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the operations of an action within `WINDOW`."""

    requested: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    retried: int = 0
    """Attempts that failed and are followed by another."""

    @property
    def ended(self) -> int:
        """Return how many operations ended, however."""
        return self.succeeded + self.failed + self.canceled


class FailurePlace(msgspec.Struct, frozen=True):
    """Where the event of an operation that failed is stored."""

    sequence: int
    at: float
    """Unix seconds."""


class RecentEvents:
    """The counts, in seconds that fall out of the window as time passes."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, Counter[tuple[str, str]]]] = deque()
        self._failures: dict[str, FailurePlace] = {}

    def add(self, subject: str, sequence: int, at: float) -> None:
        """Add a message of the journal; one that is no event that counts is passed over.

        Args:
            subject: `operations.{id}.{resource}.{action}.{event}`.
            sequence: of the stream.
            at: when it was stored, in Unix seconds. Messages come in order.
        """
        first, _, rest = subject.partition(".")
        tokens = rest.split(".")
        if first != "operations" or len(tokens) != 4 or tokens[3] not in _COUNTED:
            return
        action, event, second = f"{tokens[1]}:{tokens[2]}", tokens[3], int(at)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1][action, event] += 1
        if event == Failed.name:
            self._failures[action] = FailurePlace(sequence, at)

    def numbers(self, now: float) -> dict[str, RecentNumbers]:
        """Return the numbers by action; an action without any is not there.

        Args:
            now: Unix seconds, by the broker's clock.
        """
        while self._seconds and self._seconds[0][0] < now - WINDOW:
            self._seconds.popleft()
        total: Counter[tuple[str, str]] = Counter()
        for _, counts in self._seconds:
            total.update(counts)
        return {
            action: RecentNumbers(
                requested=total[action, Requested.name],
                succeeded=total[action, Succeeded.name],
                failed=total[action, Failed.name],
                canceled=total[action, Canceled.name],
                retried=total[action, AttemptFailed.name],
            )
            for action in sorted({action for action, _ in total})
        }

    @property
    def failures(self) -> dict[str, FailurePlace]:
        """Return the last failure of each action that had one while it was watched."""
        return dict(self._failures)
