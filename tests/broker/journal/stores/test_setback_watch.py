"""The watch of a process for a journal that has lost events, on a real broker whose files are damaged."""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from opstream_journal import Connection, Journal
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores import setback_watch
from opstream_journal.stores.setback_watch import CONDITION, SetbackWatch
from opstream_schemas import subjects
from opstream_schemas.integrity.setback import JournalRange, SetbackEvidence
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.projector.consistency import begun
from tests.support.projector.projection import LIFE, projector, running, settled, utc_now
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def test_a_damaged_journal_and_its_restore(
    broker: Broker, link: Connection, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that runs all the time reports the loss after the broker's restart, once and with the next step, and
    takes it back after a restore."""
    for number in range(30):
        await begun(journal, f"op-{number}", *LIFE)
    async with running(projector(link, journal)):
        await settled(link)
    conditions = Conditions()
    files = StreamFiles(broker.store, subjects.OPERATIONS_STREAM)

    async def is_reported() -> bool:
        return [one.name for one in conditions.current] == [CONDITION]

    async def is_over() -> bool:
        return not conditions.current

    async with running(SetbackWatch(link, conditions, now=utc_now, settling_time=0.2)):
        broker.stop()
        await asyncio.to_thread(shutil.copytree, files.folder, tmp_path / "backup")
        files.flip(files.blocks[0])
        files.remove_index()
        broker.start()
        await eventually(is_reported, within=30)
        broker.stop()
        files.remove()
        await asyncio.to_thread(shutil.copytree, tmp_path / "backup", files.folder)
        broker.start()
        await eventually(is_over, within=30)

    (error,) = [
        one.getMessage() for one in caplog.records if one.levelno == logging.ERROR and CONDITION in one.msg % one.args
    ]
    assert "it ends at sequence" in error
    assert "next step: run 'opstream verify', which says what is gone and the next steps" in error


class CountingConditions(Conditions):
    """Conditions that count how often a look found nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.clean_looks = 0

    def resolve(self, name: str) -> None:
        self.clean_looks += name == CONDITION
        super().resolve(name)


async def test_a_sound_journal(broker: Broker, link: Connection, journal: Journal) -> None:
    """A restart of the broker makes it look again, and it reports nothing."""
    await begun(journal, "op-1", *LIFE)
    conditions = CountingConditions()

    async def has_looked_once() -> bool:
        return conditions.clean_looks == 1

    async def has_looked_twice() -> bool:
        return conditions.clean_looks == 2

    async with running(SetbackWatch(link, conditions, now=utc_now, settling_time=0.2)):
        await eventually(has_looked_once, within=10)
        broker.kill()
        broker.start()
        await eventually(has_looked_twice, within=30)
    assert conditions.current == []


async def test_a_look_that_lost_its_connection(
    broker: Broker, link: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look during which the connection is lost compares nothing: what was reported stays until the next one."""
    conditions = Conditions()
    conditions.report(CONDITION, "the journal has lost events", "restore it")
    looks: list[bool] = []

    async def sample(connection: Connection, _: datetime) -> SetbackEvidence:
        broker.kill()

        async def is_lost() -> bool:
            return not connection.is_connected

        await eventually(is_lost, within=10)
        return SetbackEvidence(JournalRange(first=1, last=0, max_age=0.0))

    async def cut(_: Connection) -> dict[str, int]:
        looks.append(True)
        return {}

    async def has_looked() -> bool:
        return bool(looks)

    monkeypatch.setattr(setback_watch, "sample_evidence", sample)
    monkeypatch.setattr(setback_watch, "cut_streams", cut)
    with caplog.at_level(logging.INFO):
        async with running(SetbackWatch(link, conditions, now=utc_now, settling_time=0.2)):
            await eventually(has_looked, within=10)
            await asyncio.sleep(0)  # the look ends without another wait
            assert [one.name for one in conditions.current] == [CONDITION]
            assert "this is over" not in caplog.text
            monkeypatch.undo()
            broker.start()

            async def is_over() -> bool:
                return not conditions.current

            await eventually(is_over, within=30)
