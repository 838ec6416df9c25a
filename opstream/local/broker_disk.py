"""The disk of the broker of `opstream up`: notices that it is full, and when there is room again.

After its disk was full, nats-server stores nothing until it is restarted. So the supervisor restarts its own broker.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOM: Final = 256 * 1024 * 1024
"""Bytes that must be free before the broker is restarted, or a tenth of a disk that is smaller than ten times that."""
MAX_RESTARTS: Final = 5
"""Restarts in an hour: a disk that fills up again and again needs a person."""

_HOUR: Final = 3_600.0
_POLL: Final = 1.0
_SIGNS: Final = ("no space left on device", "disk quota exceeded")


class BrokerDisk:
    """What is known of the disk.

    Args:
        folder: the data folder of the broker.
        clock: monotonic seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._full = asyncio.Event()
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)

    def read_line(self, line: str) -> None:
        """Take a line of the broker's log."""
        if any(sign in line for sign in _SIGNS):
            self._full.set()

    async def wait_full(self) -> None:
        """Wait until the log says that the disk is full."""
        await self._full.wait()

    async def wait_room(self) -> None:
        """Wait until there is room again."""
        while not self.has_room():  # noqa: ASYNC110 - a disk has no event to wait for
            await asyncio.sleep(_POLL)

    def has_room(self) -> bool:
        """Return True if there is room for a restart."""
        usage = shutil.disk_usage(self._folder)
        return usage.free >= min(ROOM, usage.total // 10)

    def may_restart(self) -> bool:
        """Return True, and count a restart, unless there were too many lately."""
        now = self._clock()
        if len(self._restarts) == MAX_RESTARTS and now - self._restarts[0] < _HOUR:
            return False
        self._restarts.append(now)
        self._full.clear()
        return True
