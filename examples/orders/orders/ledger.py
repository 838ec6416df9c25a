"""Entries in a folder, each of which is made once: a second call finds the first one's."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


class Ledger:
    """A folder of entries. Any number of processes may write to it at once, and be killed at any line.

    Args:
        folder: is made with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, entry: str, text: str) -> str:
        """Make an entry, if there is none of that name. Return the text of the one that is there now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            # A link is made whole or not at all, and never in place of another one.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, self._folder / entry)
        return (self._folder / entry).read_text(encoding="utf-8")

    def read(self, entry: str) -> str | None:
        """Return the text of an entry; None if there is none."""
        try:
            return (self._folder / entry).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        return sorted(path.name for path in self._folder.glob("[!.]*"))
