"""Refusals for lack of room: which limit was reached, what to do, and how often this process was refused.

nats-server says "insufficient resources" and a number. Which limit that is, and where it is set, is here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

_ACCOUNT: Final = 10002
_SERVER: Final = frozenset({10023, 10028, 10047})
_STREAM: Final = 10077
_STREAM_REASON: Final = "maximum bytes"
"""In the text of `_STREAM`, which nats-server also uses for a store that closes or whose disk failed; that may pass."""
_RECENT: Final = 30.0
"""Seconds for which a refusal says something about the present: what is refused is tried again more often."""


class StorageLimit(msgspec.Struct, frozen=True):
    """A limit that was reached."""

    what: str
    """What is full, and the name of the limit."""
    next_step: str
    """How to raise it."""


SERVER_LIMIT: Final = StorageLimit(
    "the broker has reached its limit of JetStream storage (max_file_store), and refuses to store anything",
    "raise max_file_store in the configuration of the broker, or remove streams that nothing needs, and restart it",
)
ACCOUNT_LIMIT: Final = StorageLimit(
    "the account has reached its limit of JetStream storage (max_file), and the broker refuses to store more",
    "raise max_file of the account in the configuration of the broker, or remove streams that nothing needs, and "
    "reload it",
)


def stream_limit(stream: str) -> StorageLimit:
    """Return the limit of one stream."""
    step = "run 'opstream provision --update' with a larger --max-bytes, or wait until events expire"
    if stream != "OPERATIONS":
        step = f"raise max_bytes of {stream} ('nats stream edit'), which opstream does not limit"
    return StorageLimit(
        f"the stream {stream} has reached its max_bytes, and the broker refuses to store more in it", step
    )


def limit_of_refusal(err_code: int, description: str, stream: str) -> StorageLimit | None:
    """Return the limit that a refusal is about; None if it is about something else.

    Args:
        err_code: JetStream's number for the error.
        description: its text.
        stream: to which was published.
    """
    if err_code in _SERVER:
        return SERVER_LIMIT
    if err_code == _ACCOUNT:
        return ACCOUNT_LIMIT
    return stream_limit(stream) if err_code == _STREAM and _STREAM_REASON in description else None


class RefusedPublishes:
    """The publishes of one connection that were refused for lack of room.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: dict[StorageLimit, float] = {}
        self.count = 0
        """How many were refused since there was room."""

    def add(self, limit: StorageLimit) -> None:
        """Note a refusal."""
        self._last[limit] = self._clock()
        self.count += 1

    def recent(self) -> list[StorageLimit]:
        """Return the limits for which a publish was refused just now."""
        now = self._clock()
        return [limit for limit, at in self._last.items() if now - at < _RECENT]

    def clear(self) -> None:
        """Forget all, because there is room, or the broker may have been restarted with other limits."""
        self._last.clear()
        self.count = 0
