"""The key-encryption keys (KEKs) of a process: read from a file, or from what a command prints.

They are read at the start, so that a mistake is seen there, and again when a key is wrapped by one that is not known:
a rotation reaches a running service without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from opstream_schemas.errors import InvalidKek, UnknownKek
from opstream_schemas.seals.wrapped_key import Kek, KeyEntry, parse_keks, unwrap_key

logger = logging.getLogger(__name__)

NO_KEK: Final = (
    "it has no key-encryption key: name its file by --kek-file (OPSTREAM_KEK_FILE), or a command that prints it by "
    "--kek-command; 'opstream keys new FILE' makes one (docs/confidential.md)"
)
"""What a process says that needs one."""
COMMAND_TIMEOUT: Final = 30.0
"""Seconds that the command may take."""
FILE_LIMIT: Final = 64 * 1024
"""Bytes of the file, and of what the command prints."""
RELOAD_INTERVAL: Final = 5.0
"""Seconds between two looks for a KEK that is not known."""


class KekLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where the key-encryption keys of a process are. One of the two, or neither."""

    file: str = ""
    command: str = ""
    """Run without a shell; what it prints on standard output is as the file would be."""

    @property
    def is_set(self) -> bool:
        """Return True if there are any."""
        return bool(self.file or self.command)


NO_KEKS: Final = KekLocation()


def load_keks(location: KekLocation) -> tuple[Kek, ...]:
    """Read the key-encryption keys.

    Raises:
        InvalidKek: they can't be read, or are none. The message says what to do, and shows nothing of them.
    """
    if location.command:
        return _parsed(_output_of(location.command), "what --kek-command prints")
    try:
        with Path(location.file).open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidKek(f"the key-encryption keys can't be read: {location.file}: {error.strerror}") from error
    return _parsed(content, location.file)


class KekRing:
    """The key-encryption keys of this process.

    Args:
        location: where they are.
        clock: monotonic seconds.

    Raises:
        InvalidKek: as `load_keks`.
    """

    def __init__(self, location: KekLocation, clock: Callable[[], float] = time.monotonic) -> None:
        self._location = location
        self._clock = clock
        self._keks = load_keks(location)
        self._read_at = clock()
        self._lock = asyncio.Lock()

    @property
    def current(self) -> Kek:
        """Return the one that wraps new keys."""
        return self._keks[0]

    async def unwrap(self, operation_id: str, entry: KeyEntry) -> bytes:
        """Return the key of an operation. One that an unknown KEK has wrapped has them read again.

        Raises:
            UnknownKek: none of them has wrapped it.
            SealBroken: the wrapped key is damaged.
        """
        try:
            return unwrap_key(self._keks, operation_id, entry)
        except UnknownKek:
            await self._reload()
        return unwrap_key(self._keks, operation_id, entry)

    async def _reload(self) -> None:
        async with self._lock:
            if self._clock() - self._read_at < RELOAD_INTERVAL:
                return
            self._read_at = self._clock()
            try:
                self._keks = await asyncio.to_thread(load_keks, self._location)
            except InvalidKek as error:
                logger.warning("the key-encryption keys stay as they are: %s", error)


def open_ring(location: KekLocation) -> KekRing | None:
    """Return the key-encryption keys of a process; None for one that has none.

    Raises:
        InvalidKek: as `load_keks`.
    """
    return KekRing(location) if location.is_set else None


def _parsed(content: bytes, where: str) -> tuple[Kek, ...]:
    if len(content) > FILE_LIMIT:
        raise InvalidKek(f"{where} has more than {FILE_LIMIT} bytes, and is no file of key-encryption keys")
    try:
        return parse_keks(content.decode())
    except UnicodeDecodeError as error:
        raise InvalidKek(f"{where} is no text: write base64 of the key into it, as 'opstream keys new' does") from error
    except InvalidKek as error:
        raise InvalidKek(f"{where}: {error}") from error


def _output_of(command: str) -> bytes:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InvalidKek(f"--kek-command can't be split into words: {error}") from error
    if not words:
        raise InvalidKek("--kek-command is empty: write a command that prints the keys, or leave it out")
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, timeout=COMMAND_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidKek(f"--kek-command ({words[0]}) took more than {COMMAND_TIMEOUT:g} s") from error
    except OSError as error:
        raise InvalidKek(f"--kek-command ({words[0]}) can't be run: {error.strerror}") from error
    if done.returncode:
        raise InvalidKek(f"--kek-command ({words[0]}) ended with status {done.returncode}, see its own message")
    return done.stdout
