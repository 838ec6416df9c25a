"""Payloads of operations: store bytes or a file, fetch them again, checked. What services call.

All bytes of payloads pass this module, in either direction, between their owner and a store. So what must happen to
them on the way, as the encryption of confidential operations, belongs here: before the hash, which is that of the bytes
that are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opstream_schemas.errors import InvalidName
from opstream_schemas.payloads.payload_ref import MAX_PAYLOAD, PayloadKey, PayloadRef, payload_key, payload_uri

from .errors import PayloadDamaged, PayloadMissing, PayloadTooLarge
from .pieces import MeasuredPieces, Pieces, pieces_of_bytes, pieces_of_file, verified
from .store import READ, STORED, PayloadStore

if TYPE_CHECKING:
    from .payload_meter import PayloadMeter

MEDIA_TYPE: Final = "application/octet-stream"
"""Of bytes of which nothing else is known."""


class Payloads:
    """The payloads of all operations.

    Args:
        store: holds them, and is started.
        new_id: makes a UUID.

    Attributes:
        meter: what was stored and read.
    """

    def __init__(self, store: PayloadStore, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id
        # Not above: instruments load the client of the broker, and an option that names a store is checked before.
        from .payload_meter import PayloadMeter

        self.meter: PayloadMeter = PayloadMeter()

    async def store_payload(
        self, operation_id: str, source: bytes | Path, *, media_type: str = MEDIA_TYPE
    ) -> PayloadRef:
        """Store a payload of an operation: bytes, or a file, which may have any size. An event may name it afterwards.

        Args:
            operation_id: the id under which the operation is stored.
            source: what to store.
            media_type: of the bytes.

        Raises:
            StoreUnavailable: it is not stored.
            OSError: the file can't be read.
            InvalidName: the operation's id is none.
        """
        pieces = pieces_of_bytes(source) if isinstance(source, bytes) else pieces_of_file(source)
        return await self.store_stream(operation_id, pieces, media_type=media_type)

    async def store_stream(
        self, operation_id: str, pieces: Pieces, *, limit: int = MAX_PAYLOAD, media_type: str = MEDIA_TYPE
    ) -> PayloadRef:
        """Store a payload of an operation from a stream, which is read once.

        Args:
            operation_id: the id under which the operation is stored.
            pieces: the stream. What it raises ends the put.
            limit: bytes that it may have.
            media_type: of the bytes.

        Raises:
            PayloadTooLarge: it has more than the limit; nothing is stored.
            StoreUnavailable: it is not stored.
            InvalidName: the operation's id is none.
        """
        key = payload_key(operation_id, self._new_id())
        measured = MeasuredPieces(pieces, limit)
        try:
            with self.meter.counted(STORED):
                await self._store.put(key, measured, media_type)
        finally:
            self.meter.note_bytes(STORED, measured.size)
        return PayloadRef(uri=payload_uri(key), size=measured.size, sha256=measured.sha256)

    async def fetch(self, operation_id: str, ref: PayloadRef, *, limit: int) -> bytes:
        """Return the bytes of a payload, all at once.

        Args:
            operation_id: the operation whose event names it, and to which it must belong.
            ref: what the event says.
            limit: the most bytes that the caller takes into its memory.

        Raises:
            PayloadTooLarge: it has more.
            PayloadMissing, PayloadDamaged, StoreUnavailable: it can't be had.
        """
        if ref.size > limit:
            raise PayloadTooLarge(f"{ref.uri} has {ref.size} bytes, and {limit} are read at once here")
        pieces = [piece async for piece in self.stream(operation_id, ref)]
        return b"".join(pieces)

    async def fetch_to(self, operation_id: str, ref: PayloadRef, path: Path) -> None:
        """Write a payload into a new file. Without an exception the file has all of its bytes, and they are right.

        Args:
            operation_id: as of `fetch`.
            ref: what the event says.
            path: of the file; an existing one is replaced.

        Raises:
            PayloadMissing, PayloadDamaged, StoreUnavailable: it can't be had; the file is a part of it.
            OSError: the file can't be written.
        """
        file = await asyncio.to_thread(path.open, "wb")
        try:
            async with aclosing(self.stream(operation_id, ref)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
        finally:
            await asyncio.to_thread(file.close)

    def stream(self, operation_id: str, ref: PayloadRef) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a payload; the last of them only once all were found to be right.

        Args:
            operation_id: as of `fetch`.
            ref: what the event says.

        Raises:
            PayloadMissing, PayloadDamaged, StoreUnavailable: it can't be had.
        """
        return self._counted(verified(self._store.get(_key(operation_id, ref), 0, ref.size + 1), ref))

    async def stream_range(
        self, operation_id: str, ref: PayloadRef, start: int, length: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield a part of a payload. Its length is checked; its bytes can't be, since the hash is of the whole.

        Args:
            operation_id: as of `fetch`.
            ref: what the event says.
            start: the first byte, from 0.
            length: of the part; it must be within the payload.

        Raises:
            PayloadMissing, PayloadDamaged, StoreUnavailable: it can't be had.
        """
        left = length
        with self.meter.counted(READ):
            async with aclosing(self._store.get(_key(operation_id, ref), start, length)) as pieces:
                async for piece in pieces:
                    left -= len(piece)
                    self.meter.note_bytes(READ, len(piece))
                    yield piece
            if left:
                raise PayloadDamaged(f"{ref.uri} has {left} bytes less than it should have: restore it from a backup")

    async def _counted(self, found: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        with self.meter.counted(READ):
            async with aclosing(found) as pieces:
                async for piece in pieces:
                    self.meter.note_bytes(READ, len(piece))
                    yield piece

    async def is_there(self, operation_id: str, ref: PayloadRef) -> bool:
        """Return True if the store has a payload of this size. Its bytes are not read.

        Args:
            operation_id: as of `fetch`.
            ref: what the event says.

        Raises:
            PayloadMissing: it is another operation's.
            PayloadDamaged, StoreUnavailable: the store can't say.
        """
        found = await self._store.stat(_key(operation_id, ref))
        return found is not None and found.size == ref.size

    async def presigned(self, operation_id: str, ref: PayloadRef, lifetime: timedelta) -> str:
        """Return a URL at which the store serves the payload itself for so long; empty for one that serves nobody.

        Args:
            operation_id: as of `fetch`.
            ref: what the event says.
            lifetime: how long the URL works.

        Raises:
            PayloadMissing, StoreUnavailable: it can't be had.
        """
        return await self._store.presigned(_key(operation_id, ref), lifetime)


def _key(operation_id: str, ref: PayloadRef) -> PayloadKey:
    """Return the key of a payload of this operation. A forged event can name no other one's.

    Raises:
        PayloadMissing: it is another operation's, or no key at all.
    """
    try:
        key = ref.key
    except InvalidName as error:
        raise PayloadMissing(str(error)) from error
    if key.operation_id != operation_id:
        raise PayloadMissing(f"{ref.uri[:160]} is not a payload of operation {operation_id}")
    return key
