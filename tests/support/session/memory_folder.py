"""A folder in memory for what the tests of one run write."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

SHARED_MEMORY: Final = Path("/dev/shm")
_PREFIX: Final = "opstream-tests-"
_NEEDED: Final = 4 * 1024**3
"""Bytes that have to be free. A run writes some hundred megabytes at a time; containers often have 64."""


def memory_folder(parent: Path = SHARED_MEMORY) -> str | None:
    """Make a folder of this process's own, and remove those of runs that were killed.

    Returns:
        Its path; None where there is no such place, or too little room.
    """
    try:
        if shutil.disk_usage(parent).free < _NEEDED:
            return None
        for left in parent.glob(f"{_PREFIX}*"):
            owner = left.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(left, ignore_errors=True)
        made = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)
        Path(made).chmod(0o711)  # a test's PostgreSQL runs as another user
    except OSError:
        return None
    return made
