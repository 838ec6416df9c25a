"""Writes a download beside its place, and puts it there once it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Self

from opstream.client.errors import InvalidRequest


class PartFile:
    """A file that is being downloaded. A context manager: what was not put to its place is removed at the end.

    Args:
        path: where it comes to lie. A file that is there is replaced, at once.

    Attributes:
        path: the same.
        size: bytes written so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
        self._digest = hashlib.sha256()
        self._file = -1

    def open(self) -> None:
        """Begin to write.

        Raises:
            InvalidRequest: no file can be written there.
        """
        if self.path.exists() and not self.path.is_file():
            raise InvalidRequest(f"{self.path} is not a regular file, and would be replaced by one: name a file")
        try:
            self._file = os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            InvalidRequest: the disk does not take it.
        """
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise self._unwritable(error) from error
        self._digest.update(piece)
        self.size += len(piece)

    def restart(self) -> None:
        """Begin again with the first byte."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size, self._digest = 0, hashlib.sha256()

    def sha256(self) -> str:
        """The hash of what is written, in hex."""
        return self._digest.hexdigest()

    def put_in_place(self) -> None:
        """Put the whole file to its place.

        Raises:
            InvalidRequest: that can't be.
        """
        try:
            self._close()
            self._part.replace(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a disk that is full, or gone: the error of the write says so
            self._close()
        with contextlib.suppress(FileNotFoundError):
            self._part.unlink()

    def _close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def _unwritable(self, error: OSError) -> InvalidRequest:
        return InvalidRequest(f"{self.path} can't be written ({error.strerror}): make room there, or name another path")
