"""A payload store in memory: what the runs of a test store, and what tests look at afterwards."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

from opstream_payloads.errors import PayloadMissing
from opstream_payloads.pieces import PIECE, MeasuredPieces
from opstream_payloads.store import StoredPayload
from opstream_schemas.payloads.payload_ref import PayloadKey, PayloadRef, payload_key, payload_uri


class MemoryPayloads:
    """The store (`opstream_payloads.store.PayloadStore`). It outlives the runners of a run."""

    def __init__(self) -> None:
        self._kept: dict[PayloadKey, bytes] = {}

    def keep(self, operation_id: str, data: bytes) -> PayloadRef:
        """Store a payload at once, as the API does before it records a request."""
        key = payload_key(operation_id, str(uuid.uuid4()))
        self._kept[key] = data
        return PayloadRef(uri=payload_uri(key), size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def read(self, payload: PayloadRef) -> bytes:
        """Return the bytes of a payload."""
        return self._kept[payload.key]

    async def start(self) -> None:
        """Do nothing: there is nothing to open."""

    async def stop(self) -> None:
        """Do nothing."""

    async def put(self, key: PayloadKey, pieces: MeasuredPieces, media_type: str) -> None:
        """See `PayloadStore.put`."""
        del media_type
        self._kept[key] = b"".join([piece async for piece in pieces])

    async def get(self, key: PayloadKey, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See `PayloadStore.get`."""
        if key not in self._kept:
            raise PayloadMissing(f"the test has no payload {key}")
        found = self._kept[key][start : start + length]
        for begin in range(0, len(found), PIECE):
            yield found[begin : begin + PIECE]

    async def stat(self, key: PayloadKey) -> StoredPayload | None:
        """See `PayloadStore.stat`."""
        return StoredPayload(key, len(self._kept[key]), datetime.now(UTC)) if key in self._kept else None

    async def delete(self, keys: Sequence[PayloadKey]) -> None:
        """See `PayloadStore.delete`."""
        for key in keys:
            self._kept.pop(key, None)

    async def older_than(self, moment: datetime) -> AsyncGenerator[list[StoredPayload], None]:
        """See `PayloadStore.older_than`: a run lasts no day, so there is none."""
        del moment
        for nothing in list[list[StoredPayload]]():
            yield nothing

    async def remove_unfinished(self, moment: datetime) -> int:
        """See `PayloadStore.remove_unfinished`: there is none."""
        del moment
        return 0

    async def presigned(self, key: PayloadKey, lifetime: timedelta) -> str:
        """Return nothing: there is no URL in memory."""
        del key, lifetime
        return ""
