"""All instruments of one service, and what has to be read from the broker before they are shown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from opstream_journal.errors import JournalError

from .exposition import content_type, render
from .instruments import Gauges, Instrument, Readings, Sample
from .process import process_instruments

logger = logging.getLogger(__name__)

REFRESH_INTERVAL: Final = 5.0
"""Seconds between two reads of the broker for gauges, however often the page is asked for."""
SHARE: Final = 1 / 30
"""The share of its time that such a read may take: a long queue is read less often."""
KEPT: Final = 60.0
"""Seconds for which gauges show what was read last, once the next read is due: an election of the broker, or a read
that takes its time, leaves no gap in which an alert would begin again."""
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

    def refresh_with(self, read: Callable[[], Awaitable[None]], *instruments: Instrument) -> None:
        """Call `read` before a page is written, no more often than `REFRESH_INTERVAL` and `SHARE` allow.

        Args:
            read: reads from the broker what gauges show. If it raises a `JournalError`, it must leave what they show as
                it is; the next read comes soon.
            instruments: those gauges. They are shown until what was read last is older than `KEPT`, and beside them
                how old it is.
        """
        refresh = _Refresh(read, self._clock)
        self._refreshes.append(refresh)
        if instruments:
            self.add(*(_Kept(one, refresh) for one in instruments))
            self.add(
                Gauges(
                    "opstream_broker_read_age_seconds",
                    "Seconds since the gauges of this process about queues were read from the broker; no series before "
                    "the first read. Above a minute these gauges may have no series.",
                    read=refresh.age,
                )
            )

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
        self._retry_delay = REFRESH_INTERVAL
        """Until the next read, should this one fail."""
        self._read_at: float | None = None
        """When the last read ended that did not fail."""
        self._kept_until = 0.0
        self.task: asyncio.Task[None] | None = None

    @property
    def is_kept(self) -> bool:
        """Return True while what was read last may be shown."""
        return self._clock() <= self._kept_until

    def age(self) -> Readings:
        """Return for how many seconds what is known has been known."""
        return [] if self._read_at is None else [((), self._clock() - self._read_at)]

    def start(self) -> asyncio.Task[None] | None:
        """Return the read that is under way, or begin one if it is time; None if it is not."""
        if self.task is None and self._clock() >= self._due:
            self.task = asyncio.create_task(self._run(), name="gauges")
        return self.task

    async def _run(self) -> None:
        began = self._clock()
        has_read = False
        try:
            await self._read()
            has_read = True
        except JournalError as error:
            logger.debug("gauges can't be read now: %s", error)
        except Exception:
            logger.exception("gauges can't be read because of an error in the service")
        finally:
            ended = self._clock()
            pause = max(REFRESH_INTERVAL, (ended - began) * (1 / SHARE - 1))
            if has_read:
                self._retry_delay = REFRESH_INTERVAL
                self._read_at, self._kept_until = ended, ended + pause + KEPT
            else:
                # It took its time because nothing answered, which says nothing about the length of the queues. Each
                # failure doubles the pause, so that a broker in trouble is not asked more often than a slow one.
                pause = min(pause, self._retry_delay)
                self._retry_delay *= 2
            self._due = ended + pause
            self.task = None


class _Kept:
    """A family that is shown while its read is not too old."""

    def __init__(self, family: Instrument, refresh: _Refresh) -> None:
        self.name = family.name
        self.kind = family.kind
        self.help = family.help
        self.label_names = family.label_names
        self._family = family
        self._refresh = refresh

    def samples(self) -> Iterator[Sample]:
        """See `Instrument`."""
        return self._family.samples() if self._refresh.is_kept else iter(())
