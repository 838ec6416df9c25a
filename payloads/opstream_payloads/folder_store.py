"""Payloads as files in a folder that all processes reach: on one machine, or on a network file system.

A file is written beside its place, synced, and renamed; then the folder that has its name is synced. So it is there as
a whole or not at all, also after a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from opstream_schemas.errors import InvalidName
from opstream_schemas.payloads.payload_ref import PayloadKey, parse_payload_key

from .errors import PayloadMissing, StoreUnavailable
from .pieces import PIECE, MeasuredPieces
from .store import StoredPayload

_T = TypeVar("_T")

_BEGUN: Final = "begun"
"""Folder of files that are being written. No operation's folder has this name: that is in a folder of its own."""
_KEPT: Final = "kept"
_PAGE: Final = 256
_PRIVATE: Final = 0o700
_PRIVATE_FILE: Final = 0o600


class FolderStore:
    """The store in one folder, below the identity of the installation.

    Args:
        folder: absolute path. It is made if it is missing.
        installation: whose payloads these are; several may share a folder.
    """

    def __init__(self, folder: str, installation: str) -> None:
        self._root = Path(folder) / installation
        self._begun = self._root / _BEGUN
        self._kept = self._root / _KEPT

    async def start(self) -> None:
        """Make the folders, readable by this user only.

        Raises:
            StoreUnavailable: they can't be made.
        """
        await self._do(self._make_folders)

    async def stop(self) -> None:
        """Do nothing: nothing is open between two calls."""

    async def put(self, key: PayloadKey, pieces: MeasuredPieces, media_type: str) -> None:  # noqa: ARG002
        """See `PayloadStore.put`."""
        begun = self._begun / f"{key.unique}.{secrets.token_hex(4)}"
        file = await self._do(lambda: _open_new(begun))
        try:
            try:
                async for piece in pieces:
                    await self._do(partial(_write_all, file, piece))
                await self._do(lambda: os.fsync(file.fileno()))
            finally:
                await asyncio.to_thread(file.close)
            await self._do(lambda: self._keep(begun, key))
        except BaseException:
            await asyncio.to_thread(begun.unlink, missing_ok=True)
            raise

    async def get(self, key: PayloadKey, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See `PayloadStore.get`."""
        try:
            file = await asyncio.to_thread(self._path(key).open, "rb", 0)
        except FileNotFoundError as error:
            raise PayloadMissing(f"the payload store has no payload {key}") from error
        except OSError as error:
            raise _unavailable(error) from error
        try:
            await self._do(lambda: file.seek(start))
            while length > 0 and (piece := await self._do(partial(file.read, min(PIECE, length)))):
                length -= len(piece)
                yield piece
        finally:
            await asyncio.to_thread(file.close)

    async def stat(self, key: PayloadKey) -> StoredPayload | None:
        """See `PayloadStore.stat`."""
        return await self._do(lambda: _stat(self._path(key), key))

    async def delete(self, keys: Sequence[PayloadKey]) -> None:
        """See `PayloadStore.delete`. The folder of an operation goes with its last payload."""
        await self._do(lambda: self._remove(keys))

    async def older_than(self, moment: datetime) -> AsyncGenerator[list[StoredPayload], None]:
        """See `PayloadStore.older_than`."""
        walk = self._walk(moment)
        while page := await self._do(lambda: _take(walk)):
            yield page

    async def remove_unfinished(self, moment: datetime) -> int:
        """See `PayloadStore.remove_unfinished`."""
        return await self._do(lambda: self._remove_begun(moment))

    async def presigned(self, key: PayloadKey, lifetime: timedelta) -> str:
        """Return nothing: a folder serves nobody."""
        del key, lifetime
        return ""

    def _path(self, key: PayloadKey) -> Path:
        return self._kept / key.operation_id / key.unique

    def _make_folders(self) -> None:
        for folder in (self._begun, self._kept):
            folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)

    def _keep(self, begun: Path, key: PayloadKey) -> None:
        path = self._path(key)
        while True:
            is_new = not path.parent.exists()
            path.parent.mkdir(mode=_PRIVATE, exist_ok=True)
            try:
                begun.replace(path)
            except FileNotFoundError:
                if not begun.exists():
                    raise
                continue  # the removal of the operation's last payload has just removed its folder
            break
        _sync_folder(path.parent)
        if is_new:
            _sync_folder(self._kept)

    def _remove(self, keys: Sequence[PayloadKey]) -> None:
        for key in keys:
            path = self._path(key)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is another payload in it, or it is gone
                path.parent.rmdir()

    def _walk(self, moment: datetime) -> Iterator[StoredPayload]:
        with os.scandir(self._kept) as operations:
            for operation in operations:
                if not operation.is_dir(follow_symlinks=False):
                    continue
                try:
                    files = sorted(os.listdir(operation.path))  # noqa: PTH208 - names only
                except FileNotFoundError:
                    continue
                for name in files:
                    try:
                        key = parse_payload_key(f"{operation.name}/{name}")
                    except InvalidName:
                        continue  # not ours
                    found = _stat(self._path(key), key)
                    if found is not None and found.stored_at < moment:
                        yield found

    def _remove_begun(self, moment: datetime) -> int:
        removed = 0
        with os.scandir(self._begun) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    written = datetime.fromtimestamp(file.stat(follow_symlinks=False).st_mtime, UTC)
                    if written < moment and file.is_file(follow_symlinks=False):
                        Path(file.path).unlink()
                        removed += 1
        return removed

    async def _do(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise _unavailable(error) from error


def _open_new(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    return os.fdopen(descriptor, "wb", 0)


def _write_all(file: BinaryIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]  # a disk that is nearly full takes a part, and the next write says so


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stat(path: Path, key: PayloadKey) -> StoredPayload | None:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return StoredPayload(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _take(walk: Iterator[StoredPayload]) -> list[StoredPayload]:
    return [found for _, found in zip(range(_PAGE), walk, strict=False)]


def _unavailable(error: OSError) -> StoreUnavailable:
    step = "make room on its disk" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "look at its disk and its rights"
    return StoreUnavailable(f"the folder of the payload store can't be used: {error}: {step}")
