"""What a payload store can do. The three stores are this, and nothing else is asked of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from opstream_schemas.payloads.payload_ref import PayloadKey

from .pieces import MeasuredPieces

STORED: Final = "stored"
READ: Final = "read"
"""What is done to payloads, as they are counted."""


class StoredPayload(NamedTuple):
    """What a store knows of a payload."""

    key: PayloadKey
    size: int
    """Bytes."""
    stored_at: datetime
    """When it was stored, to the day at least and never later than it was, with time zone."""


class PayloadStore(Protocol):
    """A store. A payload is written once, is there as a whole or not at all, and never changes.

    All methods raise `StoreUnavailable` if the store does not answer or has no room.
    """

    async def start(self) -> None:
        """Prepare reading and writing."""

    async def stop(self) -> None:
        """End it."""

    async def put(self, key: PayloadKey, pieces: MeasuredPieces, media_type: str) -> None:
        """Store a payload. Once this returns, it survives a crash of the store.

        Args:
            key: a new one. With one that is taken it replaces the payload, as a second try does.
            pieces: the bytes, which are read once. What it raises ends the put, and nothing is stored.
            media_type: of the bytes, for a store that serves them itself.
        """

    def get(self, key: PayloadKey, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a range, piece by piece, from byte `start` on; fewer than `length` if it has no more.

        Raises:
            PayloadMissing: there is no such payload.
            PayloadDamaged: a part of it is missing.
        """

    async def stat(self, key: PayloadKey) -> StoredPayload | None:
        """Return what the store knows of a payload; None if there is none."""

    async def delete(self, keys: Sequence[PayloadKey]) -> None:
        """Remove payloads. It is no error if one of them is gone already."""

    def older_than(self, moment: datetime) -> AsyncGenerator[list[StoredPayload], None]:
        """Yield all payloads that were stored before a moment, some at a time. One that comes or goes meanwhile may be
        left out."""

    async def remove_unfinished(self, moment: datetime) -> int:
        """Remove what puts have left that began before a moment and never ended. Return how many there were."""

    async def presigned(self, key: PayloadKey, lifetime: timedelta) -> str:
        """Return a URL at which the store itself serves the payload for so long; empty for one that serves nobody.

        Raises:
            PayloadMissing: there is no such payload.
        """
