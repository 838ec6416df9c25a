"""All instruments of one service, and what has to be read from the broker before they are shown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from opstream_journal.errors import JournalError

from .exposition import content_type, render
from .instruments import Instrument
from .process import process_instruments

logger = logging.getLogger(__name__)

REFRESH_INTERVAL: Final = 5.0
"""Seconds between two reads of the broker for gauges, however often the page is asked for."""
SHARE: Final = 1 / 30
"""The share of its time that such a read may take: a long queue is read less often."""
PATIENCE: Final = 2.0
"""Seconds that a scrape waits for a read. A scraper gives up after ten, as it comes."""
_CANCEL_RETRY: Final = 0.1


class Metrics:
    """The page `/metrics` of one service. Until it is asked for, it does nothing.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._instruments: list[Instrument] = process_instruments()
        self._refreshes: list[_Refresh] = []

    def add(self, *instruments: Instrument) -> None:
        """Show further instruments."""
        self._instruments += instruments

    def refresh_with(self, read: Callable[[], Awaitable[None]]) -> None:
        """Call `read` before a page is written, no more often than `REFRESH_INTERVAL` and `SHARE` allow.

        It reads from the broker what gauges show. If it raises a `JournalError`, they must show nothing.
        """
        self._refreshes.append(_Refresh(read, self._clock))

    async def page(self, accept: str) -> tuple[str, bytes]:
        """Return the page's media type and text.

        Args:
            accept: the request's header.
        """
        reads = [task for refresh in self._refreshes if (task := refresh.start()) is not None]
        if reads:
            await asyncio.wait(reads, timeout=PATIENCE)
        form = content_type(accept)
        return form, render(self._instruments, form)

    async def stop(self) -> None:
        """End the reads that are under way."""
        # A read that was canceled before it began leaves its task behind.
        while tasks := [task for one in self._refreshes if (task := one.task) is not None and not task.done()]:
            for task in tasks:
                task.cancel()  # once is not enough: `jetstream.connection.end_task`
            await asyncio.wait(tasks, timeout=_CANCEL_RETRY)


class _Refresh:
    def __init__(self, read: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._due = 0.0
        self.task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None] | None:
        """Return the read that is under way, or begin one if it is time; None if it is not."""
        if self.task is None and self._clock() >= self._due:
            self.task = asyncio.create_task(self._run(), name="gauges")
        return self.task

    async def _run(self) -> None:
        began = self._clock()
        try:
            await self._read()
        except JournalError as error:
            logger.debug("gauges can't be read now: %s", error)
        except Exception:
            logger.exception("gauges can't be read because of an error in the service")
        finally:
            ended = self._clock()
            self._due = ended + max(REFRESH_INTERVAL, (ended - began) * (1 / SHARE - 1))
            self.task = None
