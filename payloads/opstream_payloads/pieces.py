"""The bytes of a payload as a stream of pieces: made of bytes or a file, counted, hashed and compared."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from opstream_schemas.payloads.payload_ref import MAX_PAYLOAD, PayloadRef

from .errors import PayloadDamaged, PayloadTooLarge

PIECE: Final = 256 * 1024
"""Bytes of a piece, about. Memory for one payload is a few of them, whatever its size."""

Pieces = AsyncIterator[bytes]
"""The bytes of a payload, in order."""

_SMALL: Final = 64 * 1024
"""Bytes that are hashed in the event loop: a thread for fewer costs more."""


class MeasuredPieces:
    """Pieces on their way into a store, with their size and hash so far. They can be read once.

    Args:
        pieces: the pieces.
        limit: bytes that may pass.
    """

    def __init__(self, pieces: Pieces, limit: int = MAX_PAYLOAD) -> None:
        self._pieces = pieces
        self._limit = limit
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes that have passed."""

    @property
    def sha256(self) -> str:
        """The hash of what has passed, in hex."""
        return self._hash.hexdigest()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces.

        Raises:
            PayloadTooLarge: there are more bytes than the limit.
        """
        async for piece in self._pieces:
            if not piece:
                continue
            self.size += len(piece)
            if self.size > self._limit:
                raise PayloadTooLarge(f"the payload has more than {self._limit} bytes, which is the limit here")
            await _update(self._hash, piece)
            yield piece


async def verified(pieces: AsyncGenerator[bytes, None], ref: PayloadRef) -> AsyncGenerator[bytes, None]:
    """Yield pieces; the last one only if all of them are the payload that an event names.

    Raises:
        PayloadDamaged: they are not. What was yielded before is a part of a damaged payload.
    """
    size, found = 0, hashlib.sha256()
    held = b""
    async with aclosing(pieces):
        async for piece in pieces:
            if held:
                yield held
            held = piece
            size += len(piece)
            await _update(found, piece)
            if size > ref.size:
                break
    if (size, found.hexdigest()) != (ref.size, ref.sha256):
        raise PayloadDamaged(
            f"{ref.uri} has not the bytes that were stored ({ref.size} bytes with the SHA-256 {ref.sha256}): restore "
            "it from a backup of the payload store"
        )
    if held:
        yield held


async def pieces_of_bytes(data: bytes) -> AsyncGenerator[bytes, None]:
    """Yield bytes in pieces."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def pieces_of_file(path: Path) -> AsyncGenerator[bytes, None]:
    """Yield a file in pieces. Reads in threads.

    Raises:
        OSError: the file can't be read.
    """
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
    finally:
        await asyncio.to_thread(file.close)


async def _update(found: hashlib._Hash, piece: bytes) -> None:
    if len(piece) > _SMALL:
        await asyncio.to_thread(found.update, piece)  # which lets the event loop run meanwhile
    else:
        found.update(piece)
