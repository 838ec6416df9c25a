"""What the action `azure:pass` waits at, until a test lets it go. Callers: `tests/e2e/test_azure_*.py`.

gate = Gate(tmp_path / "gate")
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
"""What the action returns."""


class FileGate:
    """A named pipe.

    Args:
        path: where to make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    async def open(self) -> None:
        """Let the action go, once it is there. No thread is held for that, so a test that fails here also ends."""
        await eventually(self._write, within=10)

    def _write(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
            pipe.write(WORD)
        return True
