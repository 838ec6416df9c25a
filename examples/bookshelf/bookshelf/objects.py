"""Single objects of the store: records that are created once, and verified copies."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStoreMethods

R = TypeVar("R")

CHUNK: Final = 1024 * 1024
"""Bytes to read, hash and write at a time: about a millisecond of the event loop."""


class WrongHash(Exception):
    """A file's hash is not the announced one."""

    def __init__(self, actual: str) -> None:
        super().__init__(actual)
        self.actual = actual


async def read_record(store: ObjectStoreMethods, path: str, record: type[R]) -> R | None:
    """A record, None if there is none.

    Raises:
        msgspec.DecodeError: the object is no such record.
    """
    try:
        return await _read_existing(store, path, record)
    except FileNotFoundError:
        return None


async def create_record(store: ObjectStoreMethods, path: str, record: R) -> R:
    """Store a record unless one exists: exactly one of several writers wins.

    Returns:
        The stored record: this one, or that of an earlier writer, perhaps of a killed attempt of this one.
    """
    try:
        await store.put_async(path, msgspec.json.encode(record), mode="create")
    except AlreadyExistsError:
        return await _read_existing(store, path, type(record))
    return record


async def copy_verified(
    store: ObjectStoreMethods,
    source: str,
    target: str,
    sha256: str,
    seen: Callable[[float], Awaitable[None]],
) -> int:
    """Copy a file while hashing it, so that the stored bytes are the hashed ones, even if the source changes meanwhile.

    The hash is compared before the last byte is committed: a put is atomic, so `target` never holds wrong bytes, and
    when several attempts write it at once they all write the same. Holds a few chunks in memory, not the file.

    Args:
        seen: called after each chunk with the part of the file that was read, 0 to 1.

    Returns:
        The file's size in bytes.

    Raises:
        WrongHash: the hash differs; `target` is unchanged.
        FileNotFoundError: the source does not exist.
    """
    found = await store.get_async(source)
    digest = hashlib.sha256()
    copied = 0

    async def verified() -> AsyncIterator[bytes]:
        nonlocal copied
        async for chunk in found.stream(min_chunk_size=CHUNK):
            digest.update(chunk)
            copied += len(chunk)
            await seen(min(copied / max(found.meta["size"], 1), 1.0))
            yield chunk
        if digest.hexdigest() != sha256:
            raise WrongHash(digest.hexdigest())

    await store.put_async(target, verified())
    return copied


async def _read_existing(store: ObjectStoreMethods, path: str, record: type[R]) -> R:
    found = await store.get_async(path)
    return msgspec.json.decode(memoryview(await found.bytes_async()), type=record)
