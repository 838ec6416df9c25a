"""Replay and export of a stream that has lost events: what a reader of the stream alone can't notice is said, too.

Honest journals are read to their ends without a word (docs/adr/0032).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opstream.history.event_reader import HistoryQuery
from opstream.history.lost_events import lost_events
from opstream_journal import Connection
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.event_filter import EventFilter
from tests.broker.projector.consistency.test_setback import (
    DAMAGES,
    OPERATIONS,
    Damage,
    archive_holds,
    damage,
    fill,
    flip_with_index,
    flip_without_index,
    lose_block,
    lose_stream,
    shorten,
    truncate_with_index,
    truncate_without_index,
)
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.journal.journals import begin, linked, opened
from tests.support.projector.consistency import begun
from tests.support.projector.projection import LIFE, projector, running, settled
from tests.support.system.processes import run

pytestmark = pytest.mark.broker

EVENTS = 3 * OPERATIONS + OPERATIONS * 3 // 4


@pytest.fixture
async def filled(broker: Broker) -> Broker:
    """A broker with a journal and its view."""
    await fill(broker.url)
    return broker


async def opstream(broker: Broker, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the broker."""
    return await asyncio.to_thread(run, *arguments, "--nats", broker.url)


async def reported(broker: Broker, **query: object) -> list[str]:
    """What a reader that has read all is told."""
    async with linked(broker.url) as link:
        last = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
        return await lost_events(link, HistoryQuery(**query), next_sequence=last + 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
async def test_each_damage(filled: Broker, how: Damage, tmp_path: Path) -> None:
    """Both commands end with 1, say that events are lost, and give all that is left; with a filter, too."""
    await damage(filled, how)
    async with linked(filled.url) as link:
        left = [one async for batch in scan_stream(link, subjects.OPERATIONS_STREAM) for one in batch]
    path = tmp_path / "export.parquet"

    for arguments in (["replay"], ["export", str(path)]):
        result = await opstream(filled, *arguments)
        assert result.returncode == 1, result.stderr
        assert (
            "missing" in result.stderr or "gone from its end" in result.stderr or "not due to expire" in result.stderr
        )
        if arguments == ["replay"]:
            assert len(result.stdout.splitlines()) == len(left)
            assert "not everything was printed" in result.stderr
        else:
            assert path.exists()
            assert "is not complete" in result.stderr

    if how is not flip_with_index:  # of which neither the broker nor a filtered read knows
        result = await opstream(filled, "replay", "--type", "requested")
        assert result.returncode == 1, result.stderr


async def test_what_replay_says(filled: Broker) -> None:
    """The sequences of the end that is gone, who has read them, and the command that says more."""
    await damage(filled, truncate_without_index)
    async with linked(filled.url) as link:
        last = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    result = await opstream(filled, "replay")
    assert (
        f"the stream has lost events: it ends at sequence {last}, and others have read more: the view" in result.stderr
    )
    assert f"gone from its end: {EVENTS - last} sequences, {last + 1} to {EVENTS}" in result.stderr
    assert "'opstream verify' says what else is gone, and what to do" in result.stderr.splitlines()[-1]

    result = await opstream(filled, "replay", "--from-sequence", str(last + 10))
    assert result.returncode == 1
    assert "If it is, the stream has lost events" in result.stderr


async def test_without_a_view(filled: Broker) -> None:
    """The broker's own word is enough."""
    async with linked(filled.url) as link:
        await link.nc.jetstream().delete_stream(subjects.bucket_stream(subjects.VIEW_BUCKET))
    await damage(filled, flip_without_index)
    result = await opstream(filled, "replay")
    assert (result.returncode, "the broker has cut" in result.stderr) == (1, True)


async def moments(broker: Broker) -> list[datetime]:
    """When each message of the journal was stored."""
    async with linked(broker.url) as link:
        return [one.stored_at async for batch in scan_stream(link, subjects.OPERATIONS_STREAM) for one in batch]


@pytest.mark.parametrize("selection", [EventFilter(), EventFilter(resource="book")])
async def test_a_selection_before_what_is_lost(filled: Broker, selection: EventFilter) -> None:
    """A reader that ends before the loss, or begins after it, has all that it asked for."""
    stored = await moments(filled)
    await damage(filled, truncate_without_index)
    left = len(await moments(filled))
    assert await reported(filled, event_filter=selection, until=stored[left - 10]) == []
    assert await reported(filled, event_filter=selection, until=stored[-1])
    assert await reported(filled, event_filter=selection, since=stored[left - 10])


async def test_a_selection_after_what_is_lost(filled: Broker) -> None:
    """A beginning that is gone, and a gap, concern no reader that begins later."""
    await damage(filled, lose_block)
    await fill(filled.url, first=10_000)
    stored = await moments(filled)
    filled.stop()  # until then the broker says that it has cut something
    filled.start()
    assert await reported(filled)
    assert await reported(filled, since=stored[10]) == []
    assert await reported(filled, first=EVENTS + 10) == []


async def test_a_gap_that_a_filter_hides(filled: Broker) -> None:
    """It is reported if the selection reaches it."""
    await damage(filled, truncate_with_index)
    left = len(await moments(filled))
    await fill(filled.url, first=10_000)
    stored = await moments(filled)
    filled.stop()
    filled.start()
    selection = EventFilter(resource="book")
    assert f"{EVENTS - left} sequences between" in "".join(await reported(filled, event_filter=selection))
    assert await reported(filled, event_filter=selection, first=EVENTS + 1) == []
    assert await reported(filled, event_filter=selection, since=stored[-10]) == []


@pytest.mark.parametrize("how", [truncate_without_index, lose_stream], ids=lambda how: how.__name__)
async def test_what_was_lost_before_it_was_archived(broker: Broker, how: Damage) -> None:
    """An archive that has all is complete whatever the journal lost; what it did not copy in time is said."""
    async with linked(broker.url) as link:
        await provision(link, Sizing(), archive=ArchiveSizing())
        journal = await opened(link)
        await asyncio.gather(*(begun(journal, f"op-{number}", *LIFE) for number in range(20)))
        await archive_holds(link, 80)
        async with running(projector(link, journal)):
            await settled(link)
    assert (await opstream(broker, "replay", "--from-archive")).returncode == 0
    await damage(broker, how)
    result = await opstream(broker, "replay", "--from-archive")
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 80), result.stderr

    async with linked(broker.url) as link:  # the archive is older than what was lost
        await link.nc.jetstream().delete_stream(subjects.ARCHIVE_STREAM)
        await provision(link, Sizing(), archive=ArchiveSizing())
        left = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
        await archive_holds(link, left)
    result = await opstream(broker, "replay", "--from-archive")
    assert result.returncode == 1, result.stderr
    assert f"the journal has lost its sequences {left + 1} to 80 before they were archived" in result.stderr


async def test_an_archive_that_was_cut(broker: Broker) -> None:
    """The broker's own word counts, as for the journal."""
    async with linked(broker.url) as link:
        await provision(link, Sizing(), archive=ArchiveSizing())
        journal = await opened(link)
        await asyncio.gather(*(begun(journal, f"op-{number}", *LIFE) for number in range(20)))
        await archive_holds(link, 80)
    broker.stop()
    files = StreamFiles(broker.store, subjects.ARCHIVE_STREAM)
    files.flip(files.blocks[0])
    files.remove_index()
    broker.start()
    result = await opstream(broker, "replay", "--from-archive")
    assert (result.returncode, "the broker has cut" in result.stderr) == (1, True), result.stderr


async def test_an_honest_journal(filled: Broker) -> None:
    """After stops and kills, with writes meanwhile, with any bounds, nothing is said."""
    stored = await moments(filled)
    for end in (filled.stop, filled.kill):
        end()
        filled.start()
        async with linked(filled.url) as link:
            writing = asyncio.create_task(write(link, f"{end.__name__}"))
            try:
                for query in (
                    {},
                    {"event_filter": EventFilter(resource="book")},
                    {"until": stored[100]},
                    {"until": stored[-1] + timedelta(microseconds=1)},
                    {"since": stored[100]},
                    {"since": datetime.now(UTC)},
                    {"first": 100},
                ):
                    assert await reported(filled, **query) == []
                result = await opstream(filled, "replay")
                assert result.returncode == 0, result.stderr
            finally:
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writing


async def write(link: Connection, name: str) -> None:
    """Begin operations for ever, while a projector takes them into the view."""
    journal = await opened(link)
    async with running(projector(link, journal)):
        number = 0
        while True:
            number += 1
            await begin(journal, f"{name}-{number}")


async def test_an_expired_beginning(filled: Broker) -> None:
    """What has expired under the age limit of the journal is not lost."""
    async with linked(filled.url) as link:
        jetstream = link.nc.jetstream()
        config = (await jetstream.stream_info(subjects.OPERATIONS_STREAM)).config
        await shorten(filled)
        await jetstream.update_stream(config.evolve(max_age=1.0, duplicate_window=1.0))
    assert await reported(filled) == []
    assert (await opstream(filled, "replay")).returncode == 0
