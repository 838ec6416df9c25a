"""A gate at which an action waits until a test opens it, or the import of a module of actions.

gate = FileGate(tmp_path / "gate")
http.post("/azure/1:pass", json={"path": str(gate.path)})
await gate.open()
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from tests.support.system.wait import eventually

WORD: Final = "through"
"""What is read there: the result of the action `azure:pass`."""


class FileGate:
    """A named pipe.

    Args:
        path: where to make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    async def open(self) -> None:
        """Release what waits, once it does. This blocks no thread, so a failing test also ends."""
        await eventually(self._write, within=10)

    def _write(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no process reads yet
                raise
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
            pipe.write(WORD)
        return True
