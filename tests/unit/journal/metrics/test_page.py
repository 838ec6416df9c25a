"""The page of a service: how often it reads the broker, what it shows if that fails, and the process's own numbers."""

from __future__ import annotations

import asyncio

import pytest

from opstream_journal.errors import JournalUnavailable
from opstream_journal.metrics.instruments import Gauges
from opstream_journal.metrics.page import REFRESH_INTERVAL, SHARE, Metrics

pytestmark = pytest.mark.unit


class Source:
    """Something that is read from a broker: how often, how long a read takes, and what it finds."""

    def __init__(self) -> None:
        self.time = 100.0
        self.metrics = Metrics(clock=lambda: self.time)
        self.reads = 0
        self.takes = 0.0
        self.fails = False
        self.found: list[tuple[tuple[str, ...], float]] = []
        self.metrics.add(Gauges("reads", "How often.", read=lambda: self.found))
        self.metrics.refresh_with(self.read)

    async def read(self) -> None:
        """Read once."""
        self.reads += 1
        self.time += self.takes
        self.found = [] if self.fails else [((), self.reads)]
        if self.fails:
            raise JournalUnavailable("the broker is away", maybe_stored=False)

    async def page(self) -> str:
        """Ask for the page."""
        return (await self.metrics.page(""))[1].decode()


@pytest.fixture
def source() -> Source:
    return Source()


async def test_the_broker_is_read_for_a_scrape_and_not_for_each(source: Source) -> None:
    """The first scrape reads, those of the next seconds show the same, and nothing is read between scrapes."""
    assert source.reads == 0
    assert "\nreads 1\n" in await source.page()
    source.time += REFRESH_INTERVAL - 0.1
    assert "\nreads 1\n" in await source.page()
    source.time += 0.2
    assert "\nreads 2\n" in await source.page()


async def test_a_read_that_takes_long_is_made_rarely(source: Source) -> None:
    """A read takes no more than its share of the time, however often the page is asked for."""
    source.takes = 3.0
    await source.page()
    source.time += 3.0 / SHARE - 3.0 - 0.1
    await source.page()
    assert source.reads == 1
    source.time += 0.2
    await source.page()
    assert source.reads == 2


async def test_scrapes_at_the_same_time_share_a_read(source: Source) -> None:
    """Two scrapers cost the broker no more than one."""
    await asyncio.gather(source.page(), source.page())
    assert source.reads == 1


async def test_without_the_broker_the_rest_is_shown(source: Source) -> None:
    """After an error nothing old is shown, and the page comes all the same."""
    source.fails = True
    page = await source.page()
    assert "\nreads " not in page
    assert "\nprocess_cpu_seconds_total " in page


async def test_a_read_that_does_not_end_is_left(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape waits a moment for a read; `stop` ends the read."""
    monkeypatch.setattr("opstream_journal.metrics.page.PATIENCE", 0.01)
    ended = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    source.metrics.refresh_with(never)
    assert "\nreads 1\n" in await source.page()
    assert not ended.is_set()
    await source.metrics.stop()
    assert ended.is_set()


async def test_a_read_that_has_not_begun_is_ended(source: Source) -> None:
    """A scrape comes in the moment in which the process stops: its read never begins, and `stop` ends."""
    scrape = asyncio.create_task(source.page())
    await asyncio.sleep(0)  # its read is made, and runs next
    async with asyncio.timeout(5):
        await source.metrics.stop()
        await scrape
    assert source.reads == 0


async def test_the_process(source: Source) -> None:
    """Processor time, memory and files are those of this process, under the names of other exporters."""
    shown = dict(line.rsplit(" ", 1) for line in (await source.page()).splitlines() if line.startswith("process_"))
    assert float(shown["process_cpu_seconds_total"]) > 0
    assert 10 * 2**20 < float(shown["process_resident_memory_bytes"]) < float(shown["process_virtual_memory_bytes"])
    assert 3 <= float(shown["process_open_fds"]) <= float(shown["process_max_fds"])
    assert float(shown["process_start_time_seconds"]) > 1.7e9
