"""The file in which `opstream rebuild` keeps entries of the view that know more than the journal: JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Self

import msgspec

from opstream.terminal.console import CommandError
from opstream_projector.consistency.rebuild import LostEntry


class LostEntriesFile:
    """A new file, which its owner alone may read. It is made with the first entry, and closed with the `with` block.

    Args:
        path: of the file; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        """Entries that were added."""
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def check(self) -> None:
        """Check that the file can be made later.

        Raises:
            CommandError: it exists, or its folder is none that can be written to.
        """
        if self.path.exists():
            raise CommandError(f"{self.path} exists: name another file with --export", status=2)
        folder = self.path.absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CommandError(f"can't write to {folder}: name another file with --export", status=2)

    def add(self, entry: LostEntry) -> None:
        """Add a line.

        Raises:
            CommandError: it can't be written.
        """
        line = msgspec.json.encode(entry).replace(b"\n", b" ") + b"\n"
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                self._file = FileIO(os.open(self.path, flags, 0o600), "w")
            written = self._file.write(line)
        except OSError as error:
            raise self._error(error) from error
        if written != len(line):
            raise self._error("not all of it was written")
        self.count += 1

    def finish(self) -> None:
        """Write all to the disk, the file and its name, and read it once.

        Raises:
            CommandError: it can't be written, or does not hold what was written.
        """
        if self._file is None:
            return
        try:
            with self._file as file:
                os.fsync(file.fileno())
            folder = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._error(error) from error
        count = sum(1 for _ in self.entries())
        if count != self.count:
            raise self._error(f"it has {count} lines of {self.count}")

    def entries(self) -> Iterator[LostEntry]:
        """The entries of the finished file, in their order.

        Raises:
            CommandError: the file does not hold what was written.
        """
        if not self.count:
            return
        try:
            with self.path.open("rb") as lines:
                for line in lines:
                    yield msgspec.json.decode(line, type=LostEntry)
        except (OSError, msgspec.MsgspecError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception | str) -> CommandError:
        what = getattr(error, "strerror", None) or error
        return CommandError(
            f"can't keep what only the view has in {self.path} ({what}); nothing of it was removed. Name another file "
            "with --export"
        )
