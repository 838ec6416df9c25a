"""Payloads that tests make: bytes that differ at each place, sources that end with an error, and what was read."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import AsyncGenerator

from opstream_schemas.payloads.payload_ref import PayloadKey, PayloadRef, payload_key, payload_uri

_WORD = 8


def new_key(operation_id: str = "op-1") -> PayloadKey:
    """The key of a new payload."""
    return payload_key(operation_id, str(uuid.uuid4()))


def ref_of(key: PayloadKey, data: bytes) -> PayloadRef:
    """What an event says of a payload with these bytes."""
    return PayloadRef(uri=payload_uri(key), size=len(data), sha256=hashlib.sha256(data).hexdigest())


def numbered_bytes(size: int) -> bytes:
    """So many bytes of which no two parts are the same, so that none can be taken for another."""
    return b"".join(number.to_bytes(_WORD, "big") for number in range(size // _WORD + 1))[:size]


async def in_pieces(data: bytes, *sizes: int) -> AsyncGenerator[bytes, None]:
    """The bytes in pieces of these sizes, one after another and again."""
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


async def breaking_off(data: bytes, error: BaseException) -> AsyncGenerator[bytes, None]:
    """The bytes, and then an error."""
    yield data
    raise error


async def collected(pieces: AsyncGenerator[bytes, None]) -> bytes:
    """All bytes of a stream."""
    return b"".join([piece async for piece in pieces])
