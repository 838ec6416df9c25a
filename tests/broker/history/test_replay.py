"""Replay in the process of the test: a broker that does not come back, and the times of the archive."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TextIO

import pytest
from nats.js.api import StreamConfig

import opstream.history.event_reader
from opstream.cli.commands.replay import ReplaySettings, _replay
from opstream.history.event_reader import HistoryQuery
from opstream.terminal.console import CommandError
from opstream_journal import Connection, Journal, JournalUnavailable
from opstream_schemas import subjects
from opstream_schemas.events import Progressed
from tests.support.broker.server import Broker
from tests.support.journal.populated_journal import populate
from tests.support.schemas.histories import NOW, History, request, started
from tests.support.system.processes import run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """A standard output, and its reader."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as printed, os.fdopen(writing, "w") as stdout:
        yield stdout, printed


async def test_a_broker_that_stays_away(
    broker: Broker,
    link: Connection,
    journal: Journal,
    pipe: tuple[TextIO, TextIO],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With --follow, an outage that is too long ends the command, which prints where to continue; nothing is lost."""
    monkeypatch.setattr(opstream.history.event_reader, "_FOLLOW_OUTAGE_TIMEOUT", 0.5)
    expected = await populate(journal, 2)
    settings = ReplaySettings(
        query=HistoryQuery(is_following=True), form="cloudevents", servers=(broker.url,), connect_timeout=5.0
    )
    stdout, printed = pipe
    monkeypatch.setattr("sys.stdout", stdout)  # not in the fixture: pytest sets it again before the test
    replaying = asyncio.create_task(_replay(settings))
    replaying.add_done_callback(lambda _: stdout.close())  # so that the reader sees the end
    lines = [await asyncio.to_thread(printed.readline) for _ in expected]
    broker.kill()
    with pytest.raises(CommandError) as raised:
        await replaying
    assert isinstance(raised.value.__cause__, JournalUnavailable)
    broker.start()
    assert lines == [f"{event.stored.decode()}\n" for event in expected]
    reported = re.search(r"stopped after (\d+) events; go on with --from-sequence (\d+)\n", capfd.readouterr().err)
    assert reported
    assert (int(reported[1]), int(reported[2])) == (len(expected), expected[-1].sequence + 1)
    await eventually(lambda: link.is_connected)


@pytest.mark.parametrize(
    ("arguments", "positions"),
    [
        (["--since", "1970-01-01"], [1, 2, 3, 4]),
        (["--since", (NOW + timedelta(seconds=1)).isoformat()], [2, 3, 4]),
        (["--since", (NOW + timedelta(seconds=1, microseconds=1)).isoformat()], [3, 4]),
        (["--since", NOW.isoformat(), "--until", (NOW + timedelta(seconds=1)).isoformat()], [1]),
        (["--since", "1s"], []),
        (["--since", "2199-12-31"], []),
    ],
)
async def test_the_archive_goes_by_when_it_happened(
    broker: Broker, link: Connection, arguments: list[str], positions: list[int]
) -> None:
    """The times of the events count, not those of their copies; reading continues after everything that was read."""
    js = link.nc.jetstream()
    await js.add_stream(StreamConfig(name=subjects.ARCHIVE_STREAM, subjects=["archive.>"]))
    for event in History().append(request(), started(), Progressed(percent=1), Progressed(percent=2)).events:
        await js.publish(f"archive.book.upload-start.{event.type.split('.')[2]}", event.stored)
    result = await asyncio.to_thread(run, "replay", "--nats", broker.url, "--from-archive", *arguments)
    assert result.returncode == 0, result.stderr
    assert re.findall(r'"position":(\d+)', result.stdout) == [str(position) for position in positions]
    assert result.stderr.endswith("go on with --from-sequence 5\n")
