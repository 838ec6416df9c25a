"""A disk of a few megabytes that can be filled and freed again.

if reason := no_small_disk():
    pytest.skip(reason)
with small_disk(folder, size=32 * MEBIBYTE) as disk:
    disk.fill()   # not a byte is left
    disk.free()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MEBIBYTE: Final = 1024 * 1024
_CHUNK: Final = 4096


class SmallDisk:
    """A mounted disk.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def left(self) -> int:
        """Bytes that are free."""
        return shutil.disk_usage(self.folder).free

    def fill(self, *, leave: int = 0) -> None:
        """Take all that is free, but `leave` bytes."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while self.left > leave or not leave:
                file.write(bytes(_CHUNK))

    def free(self) -> None:
        """Give back what `fill` has taken."""
        self._ballast.unlink()


def no_small_disk() -> str:
    """Why there can be no small disk here; empty if there can."""
    if os.geteuid() != 0:
        return "only root may mount a small disk"
    if shutil.which("mount") is None:
        return "there is no mount"
    return ""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a disk of `size` bytes (a tmpfs) on a folder, which is made, and unmount it at the end.

    Raises:
        AssertionError: it can't be mounted; the message has the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "opstream-small-disk", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    try:
        yield SmallDisk(folder)
    finally:
        # A process that has just been killed may hold it for another moment: lazily.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
