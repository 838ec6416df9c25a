"""One message of a scan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class ScannedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of a stream, as a scan yields it."""

    sequence: int
    """Sequence in the scanned stream."""
    subject: str
    data: bytes
    nanoseconds: int
    """The time at which the broker stored it, in nanoseconds since 1970."""

    @property
    def stored_at(self) -> datetime:
        """The time of its storing by the broker's clock, in UTC. Cut to microseconds: a scan from then finds it."""
        return datetime.fromtimestamp(self.nanoseconds // 1_000 / 1e6, UTC)


def nanoseconds_of(time: str) -> int:
    """Return a time as the broker writes it in headers, in nanoseconds since 1970, cut to microseconds."""
    return (datetime.fromisoformat(time) - _EPOCH) // _MICROSECOND * 1_000
