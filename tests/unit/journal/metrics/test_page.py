"""The page of a service: how often it reads the broker, what it shows if that fails, and the process's own numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

import pytest

from opstream_journal.errors import JournalUnavailable
from opstream_journal.metrics.instruments import Gauges
from opstream_journal.metrics.page import KEPT, REFRESH_INTERVAL, SHARE, Metrics

pytestmark = pytest.mark.unit


class Source:
    """Something that is read from a broker: how often, how long a read takes, and what it finds."""

    def __init__(self) -> None:
        self.time = 100.0
        self.metrics = Metrics(clock=lambda: self.time)
        self.reads = 0
        self.begun: list[float] = []
        self.takes = 0.0
        self.fails = False
        self.found: list[tuple[tuple[str, ...], float]] = []
        self.gate: Callable[[], Awaitable[object]] = partial(asyncio.sleep, 0)
        self.metrics.refresh_with(self.read, Gauges("reads", "How often.", read=lambda: self.found))

    async def read(self) -> None:
        """Read once."""
        self.reads += 1
        self.begun.append(self.time)
        await self.gate()
        self.time += self.takes
        if self.fails:
            raise JournalUnavailable("the broker is away", maybe_stored=False)
        self.found = [((), self.reads)]

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
    """Before the first read nothing is shown of the broker, and the page comes all the same."""
    source.fails = True
    page = await source.page()
    assert "\nreads " not in page
    assert "\nopstream_broker_read_age_seconds " not in page
    assert "\nprocess_cpu_seconds_total " in page


async def test_an_election_leaves_no_gap(source: Source) -> None:
    """A read that nothing answered for five seconds shows what was read before, and is made again five seconds later:
    it says nothing about how long a read takes."""
    await source.page()
    source.time += REFRESH_INTERVAL
    source.fails, source.takes = True, 5.0
    assert "\nreads 1\n" in await source.page()
    source.fails, source.takes = False, 0.0
    source.time += REFRESH_INTERVAL
    assert "\nreads 3\n" in await source.page()


async def test_each_failure_doubles_the_pause(source: Source) -> None:
    """A broker that answers for minutes no read is asked more and more rarely, down to the share of a slow read."""
    source.fails, source.takes = True, 1.0
    for _ in range(250):
        await source.page()
        source.time += 0.5
    pauses = [round(later - before - source.takes) for before, later in pairwise(source.begun)]
    assert pauses[:5] == [5, 10, 20, 29, 29]


async def test_nothing_old_is_shown(source: Source) -> None:
    """What was read last is shown for a bounded time, beside its age, so that no alert looks at yesterday's number."""
    await source.page()
    source.fails = True
    source.time += REFRESH_INTERVAL + KEPT - 0.1
    page = await source.page()
    assert "\nreads 1\n" in page
    assert f"\nopstream_broker_read_age_seconds {REFRESH_INTERVAL + KEPT - 0.1:.1f}" in page
    source.time += 0.2
    page = await source.page()
    assert "\nreads " not in page
    assert f"\nopstream_broker_read_age_seconds {REFRESH_INTERVAL + KEPT + 0.1:.1f}" in page


async def test_a_scrape_after_a_long_pause_shows_nothing_old(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scrape nothing is read. The first one after hours does not show what was so before, while it reads."""
    monkeypatch.setattr("opstream_journal.metrics.page.PATIENCE", 0.01)
    await source.page()
    source.time += 3_600
    is_over = asyncio.Event()
    source.gate = is_over.wait
    assert "\nreads " not in await source.page()
    is_over.set()
    assert "\nreads 2\n" in await source.page()


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
