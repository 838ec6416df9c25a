"""The disk of the broker of `opstream up`: notices that it is full, and when there is room again.

After its disk was full, nats-server stores nothing until it is restarted. So the supervisor restarts its own broker.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

ROOM: Final = 256 * 1024 * 1024
"""Bytes that must be free before the broker is restarted, or a tenth of a disk that is smaller than ten times that."""
MAX_RESTARTS: Final = 5
"""Restarts in an hour: a disk that fills up again and again needs a person."""

_HOUR: Final = 3_600.0
_POLL: Final = 1.0
_SIGNS: Final = ("no space left on device", "disk quota exceeded")
_CONSEQUENCES: Final = (*_SIGNS, "error creating store", "insufficient storage resources")
"""Words of the errors with which other processes end while the broker can't store."""
_NO_ROOM: Final = 1024 * 1024
"""Bytes below which nothing useful can be stored, whatever the log says."""


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
        self._usable = asyncio.Event()
        self._usable.set()
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)

    def read_line(self, line: str) -> None:
        """Take a line of the broker's log."""
        if any(sign in line for sign in _SIGNS):
            self._note_full()

    @property
    def is_full(self) -> bool:
        """Return True from the moment at which the disk is full until the broker has been restarted with room."""
        if self._usable.is_set() and self._free_bytes() < _NO_ROOM:
            self._note_full()
        return not self._usable.is_set()

    def explains(self, tail: Iterable[str]) -> bool:
        """Return True if a process ended since the disk is full. Its last lines may be here before the broker's."""
        if (
            not self.is_full
            and not self.has_room()
            and any(sign in line.lower() for line in tail for sign in _CONSEQUENCES)
        ):
            self._note_full()
        return self.is_full

    async def wait_full(self) -> None:
        """Wait until the log says that the disk is full."""
        await self._full.wait()

    async def wait_usable(self) -> None:
        """Wait until the disk is not full, and the broker has been restarted if it was."""
        while self.is_full:
            await self._usable.wait()

    async def wait_room(self) -> None:
        """Wait until there is room again."""
        while not self.has_room():  # noqa: ASYNC110 - a disk has no event to wait for
            await asyncio.sleep(_POLL)

    def has_room(self) -> bool:
        """Return True if there is room for a restart, or the disk can't be asked: a restart says then what is wrong."""
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            return True
        return usage.free >= min(ROOM, usage.total // 10)

    def may_restart(self) -> bool:
        """Return True, and count a restart, unless there were too many lately."""
        now = self._clock()
        if len(self._restarts) == MAX_RESTARTS and now - self._restarts[0] < _HOUR:
            return False
        self._restarts.append(now)
        return True

    def forget(self) -> None:
        """Forget what a broker that has ended said."""
        self._full.clear()

    def note_restarted(self) -> None:
        """Note that the broker runs again; it stores, unless it has said already that the disk is full again."""
        if not self._full.is_set():
            self._usable.set()

    def _note_full(self) -> None:
        self._usable.clear()
        self._full.set()

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return _NO_ROOM  # the folder is not made yet
