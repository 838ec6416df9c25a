"""The index follows the view on a real broker, and catches up with whatever it has missed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from opstream_index.errors import IndexUnavailable, IndexUnusable
from opstream_index.operation_row import OperationRow, instant_of
from opstream_index.sqlite_store import SqliteReader, SqliteWriter
from opstream_index.store import IndexOrigin
from opstream_journal import NEW_OPERATION, Connection, Journal, SnapshotStore
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores.snapshots import RawSnapshots
from opstream_projector.index import index_keeper
from opstream_projector.index.index_keeper import CONDITION, IndexKeeper
from opstream_schemas.events import Failed, OperationError
from tests.support.index.rows import labels_of, rows_of, wanted_rows
from tests.support.journal.journals import KIND, begin, extend, first, folded
from tests.support.projector.projection import LIFE, RESULT, live, projector, running, settled, utc_now
from tests.support.schemas.histories import request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


class BrokenWriter(SqliteWriter):
    """A writer whose database can be away."""

    is_away = False
    stuck: threading.Event | None = None
    """What a write waits for."""

    def open(self, name: str) -> IndexOrigin:
        if self.is_away:
            raise IndexUnavailable("the database is away")
        return super().open(name)

    def write(self, rows: Sequence[OperationRow]) -> None:
        if self.is_away:
            raise IndexUnavailable("the database is away")
        if self.stuck is not None:
            self.stuck.wait(60)
        super().write(rows)


class Desk:
    """One index, and what keeps it."""

    def __init__(self, link: Connection, journal: Journal, path: Path) -> None:
        self.link = link
        self.journal = journal
        self.path = path
        self.conditions = Conditions()
        self.writer = BrokenWriter(str(path))
        self.reader = SqliteReader(str(path))

    def keeper(self, view: SnapshotStore, name: str = "writer") -> IndexKeeper:
        """What keeps the index beside a projector that writes a view."""
        return IndexKeeper(
            self.link,
            self.journal,
            self.writer,
            name=name,
            shown="the test's",
            last_revision=lambda: view.last_revision,
            conditions=self.conditions,
            now=utc_now,
            interval=0.02,
        )

    @contextlib.asynccontextmanager
    async def running(self, name: str = "writer") -> AsyncIterator[IndexKeeper]:
        """Run a projector with the index."""
        view = SnapshotStore(self.link)
        keeper = self.keeper(view, name)
        async with running(projector(self.link, self.journal, view, index=keeper), keeper):
            yield keeper

    def delete(self) -> None:
        """Delete the file, and what SQLite has beside it."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    async def complete(self) -> None:
        """Wait until the index is complete."""

        def is_complete() -> bool:
            try:
                return self.reader.coverage().is_complete
            except IndexUnavailable:
                return False

        await eventually(is_complete, within=20)

    async def matches(self, ids: Sequence[str]) -> None:
        """Wait until the rows are those that follow from the journal, and no others."""
        wanted = await wanted_rows(self.journal, ids)

        def found() -> bool:
            with contextlib.suppress(IndexUnavailable):
                return rows_of(self.reader) == wanted
            return False

        try:
            await eventually(found, within=20)
        except AssertionError:
            assert rows_of(self.reader) == wanted


@pytest.fixture
def desk(link: Connection, journal: Journal, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(link, journal, tmp_path / "index.db")
    yield desk
    desk.reader.close()


async def test_what_is_acknowledged_is_in_the_index(desk: Desk, journal: Journal) -> None:
    """Once the events of an operation are acknowledged, its row is there: nothing needs to be waited for."""
    async with desk.running():
        await desk.complete()
        data = request(labels={"team": "press"})
        operation = folded(None, await journal.append(KIND, first("labeled", data=data), NEW_OPERATION, budget=10))
        await live(journal, "done", *LIFE)
        await extend(journal, await begin(journal, "bad"), Failed(error=OperationError(code="Torn", message="a page")))
        await settled(desk.link)
        assert rows_of(desk.reader) == await wanted_rows(journal, ["labeled", "done", "bad"])
        assert labels_of(desk.reader) == {("team", "press", operation.id)}


async def test_a_new_index_is_made_while_the_system_works(desk: Desk, journal: Journal) -> None:
    """Operations from before the index, and those that go on or begin while it is made, are all in it."""
    old = [f"old-{number}" for number in range(600)]
    open_ones = [await begin(journal, one) for one in old[:20]]
    await asyncio.gather(*(live(journal, one, *LIFE) for one in old[20:]))
    async with running(projector(desk.link, journal)):
        await settled(desk.link)
    new = [f"new-{number}" for number in range(20)]
    async with desk.running():
        for operation, name in zip(open_ones, new, strict=True):
            await extend(journal, operation, started(), RESULT)
            await live(journal, name, *LIFE)
        await desk.complete()
        await settled(desk.link)
        await desk.matches([*old, *new])


async def test_a_deleted_file_is_made_again(desk: Desk, journal: Journal) -> None:
    """If the file is deleted under a running projector, the index is there again with all that it had."""
    async with desk.running():
        await live(journal, "one", *LIFE)
        await desk.complete()
        await settled(desk.link)
        desk.delete()
        await live(journal, "two", *LIFE)
        await desk.matches(["one", "two"])
        assert desk.conditions.current == []


async def test_an_older_copy_catches_up(desk: Desk, journal: Journal) -> None:
    """A file from a backup, or one that lost its last transactions in a power cut, gets what it lacks, and no more."""
    ended = await begin(journal, "ended")
    brief = request(retention=1.0)
    gone = folded(None, await journal.append(KIND, first("gone", data=brief), NEW_OPERATION, budget=10))
    async with desk.running():
        await desk.complete()
        await settled(desk.link)
        await desk.matches(["ended", "gone"])
        desk.reader.close()  # the last one that closes the file leaves all of it in one
    copy = desk.path.with_suffix(".copy")
    shutil.copy(desk.path, copy)
    async with desk.running("second"):
        await extend(journal, ended, started(), RESULT)
        await extend(journal, gone, started(), RESULT)
        await live(journal, "later", *LIFE)
        await settled(desk.link)
        await desk.matches(["ended", "later"])
        desk.reader.close()
    await _forget(desk.link, "gone")
    desk.delete()
    copy.replace(desk.path)
    assert sorted(rows_of(desk.reader)) == ["ended", "gone"]
    async with desk.running("third"):
        await desk.matches(["ended", "later"])


async def test_the_view_does_not_wait_for_the_index(desk: Desk, journal: Journal) -> None:
    """While the database is away, the view goes on and `/readyz` says it; afterwards the index has all."""
    async with desk.running():
        await live(journal, "before", *LIFE)
        await desk.complete()
        await settled(desk.link)
        desk.writer.is_away = True
        await live(journal, "meanwhile", *LIFE)
        await settled(desk.link)
        await eventually(lambda: [one.name for one in desk.conditions.current] == [CONDITION])
        assert sorted(rows_of(desk.reader)) == ["before"]
        desk.writer.is_away = False
        await desk.matches(["before", "meanwhile"])
        await eventually(lambda: desk.conditions.current == [])


async def test_a_database_that_does_not_answer(desk: Desk, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch waits for it for a while, and goes on without; a process that stops does not wait for it at all."""
    monkeypatch.setattr(index_keeper, "STORE_TIMEOUT", 0.1)
    monkeypatch.setattr(index_keeper, "_CLOSE_TIMEOUT", 0.1)
    desk.writer.stuck = threading.Event()
    async with desk.running():
        await live(journal, "one", *LIFE)
        await settled(desk.link)
        await eventually(lambda: [one.name for one in desk.conditions.current] == [CONDITION])
    desk.writer.stuck.set()
    desk.writer = BrokenWriter(str(desk.path))  # the thread of the first one may still be at work
    async with desk.running("next"):
        await desk.matches(["one"])


async def test_what_a_dead_writer_owed_is_paid(desk: Desk, journal: Journal) -> None:
    """A writer that died without having written what it acknowledged is found by another one, which writes it."""
    async with running(projector(desk.link, journal)):
        await live(journal, "lost", *LIFE)
        await settled(desk.link)
    view = SnapshotStore(desk.link)
    revision = (await view.get_newest("lost")).revision
    async with desk.running():
        await desk.complete()
        await desk.matches(["lost"])
        await asyncio.to_thread(_die_owing, desk, revision - 1)
        await desk.matches(["lost"])
        await eventually(lambda: desk.reader.fetch("SELECT name FROM writer") == [("writer",)], within=20)


async def test_rows_end(desk: Desk, journal: Journal) -> None:
    """The row of an operation ends with its retention."""
    data = request(retention=1.0, resource_id="1")
    short = folded(None, await journal.append(KIND, first("short", data=data), NEW_OPERATION, budget=10))
    async with desk.running():
        await extend(journal, short, started(), RESULT)
        await live(journal, "long", *LIFE)
        await settled(desk.link)
        await desk.matches(["long"])


async def test_the_lag_is_measured(desk: Desk, journal: Journal) -> None:
    """It is small while the projector works, and grows once it does not."""
    async with desk.running() as keeper:
        await live(journal, "one", *LIFE)
        await desk.complete()
        await settled(desk.link)
        await eventually(lambda: desk.reader.coverage().lag(instant_of(utc_now())) < 3)
        assert keeper.lag < 3
        names = {instrument.name for instrument in keeper.instruments}
        assert names == {"opstream_index_rows", "opstream_index_lag_seconds", "opstream_index_complete"}
    until = desk.reader.coverage().complete_until
    await eventually(lambda: desk.reader.coverage().lag(instant_of(utc_now())) > 0.5)
    assert desk.reader.coverage().complete_until == until


async def test_a_file_of_something_else_ends_the_process(desk: Desk) -> None:
    """A database that can't be an index is the reason with which the loop ends."""
    desk.path.write_text("my only copy of it" * 100)
    with pytest.raises(IndexUnusable, match="name another file"):
        await desk.keeper(SnapshotStore(desk.link)).run()


def _die_owing(desk: Desk, revision: int) -> None:
    """Leave what a process leaves that had acknowledged an operation, and could not write it."""
    with sqlite3.connect(desk.path) as database:
        long_ago = instant_of(utc_now()) - 3_600_000_000
        database.execute("INSERT INTO writer VALUES ('dead', ?, 1, ?, ?)", (revision, long_ago, long_ago))
        database.execute("DELETE FROM operation")
    database.close()


async def _forget(link: Connection, operation_id: str) -> None:
    """Remove an operation from the view, as its time to live would."""
    entries = RawSnapshots(link)
    entry = await entries.get_newest(operation_id)
    if entry is not None:
        await entries.remove(operation_id, entry.revision)
