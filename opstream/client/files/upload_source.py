"""Reads what is uploaded, in pieces, again for each try."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from opstream.client.errors import InvalidRequest

OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that are done, and those that there are."""

_PIECE: Final = 256 * 1024
"""Bytes that are read at once."""


class UploadSource:
    """A file, or bytes in memory.

    Args:
        source: the path, or the bytes.
        on_advance: called when more was sent than in any try before.
        on_progress: called with the bytes sent in this try, and all; None for nobody.

    Attributes:
        size: bytes.
        sha256: of the last try that read it to its end, in hex; empty before.

    Raises:
        InvalidRequest: there is no such file, or it is none.
    """

    def __init__(
        self, source: str | os.PathLike[str] | bytes, on_advance: Callable[[], None], on_progress: OnProgress | None
    ) -> None:
        self._source = source if isinstance(source, bytes) else Path(source)
        self._on_advance = on_advance
        self._on_progress = on_progress
        self._sent = self._most = 0
        self.sha256 = ""
        if isinstance(self._source, bytes):
            self.size = len(self._source)
            return
        try:
            self.size = self._source.stat().st_size
        except OSError as error:
            raise _unreadable(self._source, error) from error
        if not self._source.is_file():
            raise InvalidRequest(f"{self._source} is not a regular file: write what it holds into one first")

    def pieces(self) -> Iterator[bytes]:
        """Read it from its begin.

        Raises:
            InvalidRequest: it can't be read, or has another size than before.
        """
        self._sent, self.sha256 = 0, ""
        digest, read = hashlib.sha256(), 0
        for piece in self._read():
            digest.update(piece)
            read += len(piece)
            if read > self.size:
                break
            yield piece
        if read != self.size:
            raise InvalidRequest(f"{self._source!s} has changed while it was uploaded: upload it once it is written")
        self.sha256 = digest.hexdigest()

    def note_sent(self, size: int) -> None:
        """Count what is handed to the network."""
        self._sent += size
        if self._sent > self._most:
            self._most = self._sent
            self._on_advance()
        if self._on_progress is not None:
            self._on_progress(self._sent, self.size)

    def _read(self) -> Iterator[bytes]:
        if isinstance(self._source, bytes):
            for begin in range(0, len(self._source), _PIECE):
                yield self._source[begin : begin + _PIECE]
            return
        try:
            with self._source.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except OSError as error:
            raise _unreadable(self._source, error) from error


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"{path} can't be read ({error.strerror}): check the path, and who may read it")
