"""Payloads on S3, or a store that is compatible with it, by obstore.

obstore reads region, credentials and endpoint from the environment (`AWS_REGION`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from opstream_schemas.errors import InvalidName
from opstream_schemas.payloads.payload_ref import PayloadKey, parse_payload_key

from .errors import InvalidStoreUrl, PayloadMissing, StoreUnavailable
from .pieces import PIECE, MeasuredPieces
from .store import StoredPayload

PART: Final = 8 * 1024 * 1024
"""Bytes of a part of an upload. S3 takes 10,000 parts, and all but the last must have 5 MiB at least; so this allows
80 GB."""
PARTS_AT_ONCE: Final = 4
"""Parts of one upload that are in memory."""

_PAGE: Final = 256


class S3Payloads:
    """The store in a bucket, below the identity of the installation.

    Args:
        bucket: its name.
        prefix: of all keys in it; empty for none.
        installation: whose payloads these are; several may share a bucket.

    Raises:
        InvalidStoreUrl: the settings in the environment contradict each other.
    """

    def __init__(self, bucket: str, prefix: str, installation: str) -> None:
        self._installation = installation
        try:
            self._store = S3Store(bucket, prefix=prefix or None)
        except (BaseError, ValueError) as error:
            raise InvalidStoreUrl(f"the bucket {bucket} can't be used: {error}") from error

    async def start(self) -> None:
        """Do nothing: the first call connects."""

    async def stop(self) -> None:
        """Do nothing: obstore keeps connections by itself."""

    async def put(self, key: PayloadKey, pieces: MeasuredPieces, media_type: str) -> None:
        """See `PayloadStore.put`. What it raises aborts the upload of parts."""
        raised: list[BaseException] = []
        try:
            await self._store.put_async(
                self._path(key),
                _guarded(pieces, raised),
                attributes={"Content-Type": media_type},
                chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )
        except (BaseError, OSError) as error:
            if raised:
                raise raised[0] from None
            raise _unavailable(error) from error

    async def get(self, key: PayloadKey, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See `PayloadStore.get`."""
        stored = await self.stat(key)
        if stored is None:
            raise PayloadMissing(f"the payload store has no payload {key}")
        end = min(start + length, stored.size)
        if start >= end:
            return
        try:
            found = await self._store.get_async(self._path(key), options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)
        except FileNotFoundError as error:
            raise PayloadMissing(f"the payload store has no payload {key}") from error
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def stat(self, key: PayloadKey) -> StoredPayload | None:
        """See `PayloadStore.stat`."""
        try:
            found = await self._store.head_async(self._path(key))
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return StoredPayload(key, found["size"], found["last_modified"])

    async def delete(self, keys: Sequence[PayloadKey]) -> None:
        """See `PayloadStore.delete`."""
        try:
            await self._store.delete_async([self._path(key) for key in keys])
        except FileNotFoundError:
            return  # S3 itself says nothing of one that is gone; others do
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def older_than(self, moment: datetime) -> AsyncGenerator[list[StoredPayload], None]:
        """See `PayloadStore.older_than`."""
        prefix = f"{self._installation}/"
        try:
            async for page in self._store.list(prefix, chunk_size=_PAGE):
                found = []
                for one in page:
                    try:
                        key = parse_payload_key(one["path"].removeprefix(prefix))
                    except InvalidName:
                        continue  # not ours
                    if one["last_modified"] < moment:
                        found.append(StoredPayload(key, one["size"], one["last_modified"]))
                if found:
                    yield found
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def remove_unfinished(self, moment: datetime) -> int:
        """Remove nothing: uploads that were begun are in no list. The bucket's own rule removes them (docs)."""
        del moment
        return 0

    async def presigned(self, key: PayloadKey, lifetime: timedelta) -> str:
        """See `PayloadStore.presigned`."""
        if await self.stat(key) is None:
            raise PayloadMissing(f"the payload store has no payload {key}")
        return await obstore.sign_async(self._store, "GET", self._path(key), lifetime)

    def _path(self, key: PayloadKey) -> str:
        return f"{self._installation}/{key}"


async def _guarded(pieces: MeasuredPieces, raised: list[BaseException]) -> AsyncIterator[bytes]:
    """Yield pieces, and keep what they raise: obstore would make an error of its own of it."""
    try:
        async for piece in pieces:
            yield piece
    except BaseException as error:
        raised.append(error)
        raise


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the payload store on S3 can't be used: {error}")
