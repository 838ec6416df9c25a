"""Damages the files of a stopped nats-server as a bad disk would: bytes flip, blocks are cut, files are gone.

    broker.stop()
    files = StreamFiles(broker.store, "OPERATIONS")
    files.flip(files.blocks[-1])  # eight bytes in the middle of the last block
    files.remove_index()          # so that the server builds its index from the blocks
    broker.start()

Of a server that runs, change nothing: it has parts of the files in memory.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_RECORD_HEAD: Final = struct.Struct("<IQ")
"""Of a stored message: its length with a flag for headers, and its stream sequence."""
_HAS_HEADERS: Final = 0x8000_0000
_UNUSED: Final = 0x4000_0000_0000_0000
"""Flag of the sequence of a record that holds no message."""


class StoredRecord(NamedTuple):
    """One record of a block file."""

    sequence: int
    offset: int
    """Bytes before it in the file."""
    length: int
    """Its bytes."""


class StreamFiles:
    """The files of one stream.

    Args:
        store: the folder of the server's JetStream (`Broker.store`).
        stream: name of the stream; of a bucket `KV_{bucket}`.
    """

    def __init__(self, store: Path, stream: str) -> None:
        self.folder = store / "$G" / "streams" / stream
        self._messages = self.folder / "msgs"

    @property
    def blocks(self) -> list[Path]:
        """The block files, oldest first; the server calls them `1.blk`, `2.blk` and so on."""
        return sorted(self._messages.glob("*.blk"), key=lambda path: int(path.stem))

    @property
    def index(self) -> Path:
        """The server writes this file when it stops; with it, it reads no block when it starts."""
        return self._messages / "index.db"

    def remove_index(self) -> None:
        """Remove the index, as if the server had crashed before it wrote one."""
        self.index.unlink(missing_ok=True)

    def flip(self, file: Path, *, offset: int | None = None, count: int = 8) -> None:
        """Invert bytes.

        Args:
            file: of this stream.
            offset: bytes before the first one; None for the middle of the file.
            count: how many.
        """
        with file.open("r+b") as opened:
            size = file.stat().st_size
            begin = size // 2 if offset is None else offset
            assert 0 <= begin < size, f"{file} has {size} bytes"
            opened.seek(begin)
            found = opened.read(count)
            opened.seek(begin)
            opened.write(bytes(byte ^ 0xFF for byte in found))

    def truncate(self, file: Path, *, size: int | None = None) -> None:
        """Cut a file.

        Args:
            file: of this stream.
            size: the bytes that stay; None for half of them.
        """
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size // 2 if size is None else size)

    def remove_consumer(self, name: str) -> None:
        """Remove a consumer with all that it knows."""
        shutil.rmtree(self.folder / "obs" / name)

    def remove(self) -> None:
        """Remove the whole stream with its consumers."""
        shutil.rmtree(self.folder)

    def records(self, block: Path) -> Iterator[StoredRecord]:
        """The records of an undamaged block that is neither compressed nor encrypted."""
        data = block.read_bytes()
        offset = 0
        while offset + _RECORD_HEAD.size <= len(data):
            length, sequence = _RECORD_HEAD.unpack_from(data, offset)
            length &= ~_HAS_HEADERS
            assert length, f"{block} has no record at {offset}"
            if not sequence & _UNUSED:
                yield StoredRecord(sequence, offset, length)
            offset += length
