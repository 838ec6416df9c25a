"""Which streams have stopped to answer publishes: after its disk was full, nats-server answers all but those."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

_LASTING: Final = 4.0
"""Seconds between the first and the last publish without an answer: longer than an election, mostly."""
_FORGOTTEN: Final = 600.0
"""Seconds after which a publish without an answer says nothing about the present."""
_BUCKETS: Final = {"$KV": "KV", "$O": "OBJ"}
_TIMERS: Final = "TIMERS"
_TIMER_WORDS: Final = frozenset({"timers", "fire", "overdue"})


class UnansweredPublishes:
    """The publishes of one connection that got no answer in time, by stream, without any answer since.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[str, tuple[float, float]] = {}
        """First and last time by stream."""

    def __bool__(self) -> bool:
        return bool(self._times)

    def add(self, subject: str) -> None:
        """Note a publish without an answer."""
        now = self._clock()
        first, _ = self._times.get(stream_of(subject), (now, now))
        self._times[stream_of(subject)] = (first, now)

    def remove(self, subject: str) -> None:
        """Note that a publish was answered."""
        self._times.pop(stream_of(subject), None)

    def clear(self, streams: Iterable[str] | None = None) -> None:
        """Forget all, or those of some streams."""
        for stream in list(self._times) if streams is None else streams:
            self._times.pop(stream, None)

    @property
    def streams(self) -> list[str]:
        """The streams that have not answered the last publish."""
        return list(self._times)

    def lasting(self) -> list[str]:
        """Return the streams that have not answered for some seconds."""
        now = self._clock()
        return [
            stream
            for stream, (first, last) in self._times.items()
            if last - first >= _LASTING and now - last < _FORGOTTEN
        ]


def stream_of(subject: str) -> str:
    """Return the stream that takes a subject of ours."""
    first, _, rest = subject.partition(".")
    if (kind := _BUCKETS.get(first)) is not None:
        return f"{kind}_{rest.partition('.')[0]}"
    return _TIMERS if first in _TIMER_WORDS else first.upper()
