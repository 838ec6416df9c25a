"""A file with the records of API keys: JSON, written as a whole or not at all, readable by its owner only."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from opstream_journal.jetstream.connection import end_task
from opstream_schemas.errors import InvalidName

from .api_key import ApiKeyRecord, check_record

logger = logging.getLogger(__name__)

LOOK_INTERVAL: Final = 0.25
"""Seconds between two looks at whether the file has changed."""

_MODE: Final = 0o600
_OTHERS: Final = 0o077
_Stamp = tuple[int, int, int, int] | None


class KeyFileContent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    keys: tuple[ApiKeyRecord, ...] = ()


class InvalidKeyFile(Exception):
    """The file can't be read, or is none of API keys. The message says what to do."""


def read_key_file(path: Path) -> tuple[ApiKeyRecord, ...]:
    """Return the records in a file.

    Raises:
        InvalidKeyFile: it is missing, can't be read, or has something else.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=KeyFileContent)
        records = tuple(map(check_record, content.keys))
    except OSError as error:
        raise InvalidKeyFile(
            f"{path} can't be read ({error.strerror}): 'opstream apikey add --file {path}' makes one"
        ) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError, InvalidName) as error:
        raise InvalidKeyFile(f"{path} is no file of API keys: {error}") from error
    if len({record.id for record in records}) < len(records):
        raise InvalidKeyFile(f"{path} has two API keys with one id: remove one of them")
    return records


def change_key_file(path: Path, change: Callable[[Sequence[ApiKeyRecord]], Sequence[ApiKeyRecord]]) -> None:
    """Replace the records in a file, which is made if it is missing.

    Readers see the old content or the new one, and two changes at once both take place. The file keeps its owner and
    mode. A lock file beside it remains.

    Args:
        path: the file.
        change: returns the new records. An exception of it leaves the file as it was.

    Raises:
        InvalidKeyFile: the file can't be read or written.
    """
    target = path.resolve()  # a link stays a link
    try:
        with _locked(target):
            records = read_key_file(target) if target.exists() else ()
            _replace(target, KeyFileContent(keys=tuple(change(records))))
    except OSError as error:
        raise InvalidKeyFile(f"{path} can't be written ({error.strerror}): choose another --file") from error


class KeyFileWatch:
    """Keeps a listener up to date with the records in a file, within a second of each change.

    A file that is broken or gone changes nothing: the keys that were read last stay in use, and one warning says so.
    Each look tries the file again, since it may be readable later without another change.

    Args:
        path: the file.
        on_records: called with all records, at the start and after each change.
    """

    def __init__(self, path: Path, on_records: Callable[[Sequence[ApiKeyRecord]], None]) -> None:
        self._path = path
        self._on_records = on_records
        self._seen: _Stamp = None
        """Of the content that is in use."""
        self._warned: _Stamp = None
        """Of the content that the last warning was about; that of `_seen` without one."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the file and begin to watch it.

        Raises:
            InvalidKeyFile: it can't be read.
        """
        self._seen = self._warned = _stamp(self._path)
        records = read_key_file(self._path)
        if self._path.stat().st_mode & _OTHERS:
            logger.warning("%s can be read by other users of this machine: 'chmod 600 %s'", self._path, self._path)
        self._on_records(records)
        self._task = asyncio.create_task(self._watch(), name="key file watch")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            await end_task(self._task)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            stamp = _stamp(self._path)
            if stamp == self._seen:
                self._warned = stamp
                continue
            try:
                records = read_key_file(self._path)
            except InvalidKeyFile as error:
                if stamp != self._warned:
                    logger.warning("the API keys that were read last stay in use: %s", error)
                self._warned = stamp
                continue
            # Only now: a read that failed must be repeated, or a revocation in it would be lost.
            self._seen = self._warned = stamp
            self._on_records(records)
            logger.info("the API keys in %s were read again", self._path)


def _stamp(path: Path) -> _Stamp:
    """Return what tells one content of the file from the next; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    # The file itself can't be the lock, since each change replaces it.
    lock = os.open(target.with_name(f"{target.name}.lock"), os.O_RDWR | os.O_CREAT, _MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(target: Path, content: KeyFileContent) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            _keep_access(target, file.fileno())
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _keep_access(target: Path, handle: int) -> None:
    """Give a new file owner, group and mode of the one that it replaces: the service may run under another user."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return
    try:
        os.fchown(handle, found.st_uid, found.st_gid)
    except PermissionError as error:
        raise InvalidKeyFile(
            f"{target} belongs to user {found.st_uid} and group {found.st_gid}, and this user can't keep it so: run "
            "the command as root or as that user"
        ) from error
    os.fchmod(handle, stat.S_IMODE(found.st_mode))
