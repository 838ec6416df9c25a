"""An index in a real PostgreSQL: what is stored, what is found, and several writers at once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator

import pytest

from opstream_index import postgres_store
from opstream_index.errors import IndexUnavailable, IndexUnusable, QueryTimeout
from opstream_index.location import parse_location
from opstream_index.operation_row import OperationRow, place_of
from opstream_index.postgres_store import PostgresReader, PostgresWriter
from opstream_index.store import NEW_INDEX, Coverage, Debt
from opstream_index.tables import SCHEMA_VERSION
from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.runtime.conditions import Conditions
from opstream_projector.index.index_keeper import IndexKeeper
from tests.support.index.postgres_server import PostgresServer
from tests.support.index.rows import begun, labels_of, rows_of, wanted_rows
from tests.support.journal.journals import begin, extend
from tests.support.projector.projection import LIFE, RESULT, live, projector, running, settled, utc_now
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

AT = 1_800_000_000_000_000
FOREVER = 2**62


def row(one: str, position: int = 1, **changes: object) -> OperationRow:
    """A row of an operation that runs; with `position` it is another state."""
    values = dict.fromkeys(OperationRow._fields)
    values |= {"place": place_of(AT, one), "id": one, "own_id": one, "tenant": "", "caller": "", "resource": "book"}
    values |= {"action": "start", "resource_id": "", "status": "Running", "created_at": AT, "updated_at": AT}
    values |= {"attempt": 1, "version": 1, "position": position, "expires_at": FOREVER}
    return OperationRow(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def writer(database: str) -> Iterator[PostgresWriter]:
    writer = PostgresWriter(parse_location(database))
    assert begun(writer, "one", "journal", 0, 0) == NEW_INDEX
    yield writer
    writer.close()


@pytest.fixture
def reader(database: str) -> Iterator[PostgresReader]:
    reader = PostgresReader(parse_location(database))
    yield reader
    reader.close()


def test_rows_labels_and_texts(writer: PostgresWriter, reader: PostgresReader) -> None:
    """Rows come back as they were; the state with the highest position counts, whatever comes after it."""
    writer.write([row("a", 2, message="it's 100 % done"), row("b", 5, code="E", labels='{"k":"v","l":"w"}', attempt=3)])
    writer.write([row("a", 1, message="an older text"), row("b", 5, code="other")])
    assert rows_of(reader) == {
        "a": row("a", 2, message="it's 100 % done"),
        "b": row("b", 5, code="E", labels='{"k":"v","l":"w"}', attempt=3),
    }
    assert labels_of(reader) == {("k", "v", "b"), ("l", "w", "b")}
    assert reader.fetch("SELECT id FROM operation WHERE message ILIKE %s", ("%00 \\% DONE%",)) == [("a",)]


def test_operations_of_one_place_are_kept_apart(writer: PostgresWriter, reader: PostgresReader) -> None:
    """Two operations with the same place have a row each, whatever follows."""
    place = place_of(AT, "a")
    writer.write([row(one, place=place) for one in "abc"])
    writer.write([row(one, 2, place=place, attempt=2) for one in "bcd"])
    assert {one.id: one.attempt for one in rows_of(reader).values()} == {"a": 1, "b": 2, "c": 2, "d": 2}


def test_rows_end_with_their_retention(writer: PostgresWriter, reader: PostgresReader) -> None:
    """Expired rows go, some at a time, with their labels."""
    writer.write([row(f"{number}", labels='{"k":"v"}', expires_at=AT + number) for number in range(10)])
    assert [writer.expire(AT + 6, 4) for _ in range(3)] == [4, 3, 0]
    writer.remove([rows_of(reader)["9"].place])
    assert sorted(rows_of(reader)) == ["7", "8"]
    assert reader.fetch("SELECT count(*) FROM label") == [(2,)]


def test_the_mark_comes_back(writer: PostgresWriter, reader: PostgresReader, database: str) -> None:
    """The next process gets the lowest mark; an index of another journal, or one set back, is made again."""
    assert reader.coverage() == Coverage(is_complete=False, complete_until=0)
    writer.write([row("a", 5)])
    writer.mark(Debt(revision=7, complete_until=AT, is_complete=True), AT)
    assert reader.coverage() == Coverage(is_complete=True, complete_until=AT)
    other = PostgresWriter(parse_location(database))
    debt = begun(other, "two", "journal", 7, 5)
    assert debt == Debt(revision=7, complete_until=AT, is_complete=True, writers=(("one", AT),))
    assert writer.stale(AT + 60_000_001) is None
    assert other.stale(AT + 60_000_001) == debt
    other.forget(debt, AT + 60_000_001)
    assert reader.fetch("SELECT count(*) FROM writer") == [(0,)]
    for source, revision, position in (("another", 9, 9), ("journal", 9, 4)):
        writer.write([row("a", 5)])
        assert begun(other, "two", source, revision, position) == NEW_INDEX
        assert rows_of(reader) == {}
    other.close()


def test_an_index_of_another_version(
    writer: PostgresWriter, database: str, reader: PostgresReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one is made again. A newer one is left alone while its projectors live."""
    writer.write([row("a")])
    monkeypatch.setattr(postgres_store, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(IndexUnavailable, match="is of another version"):
        reader.fetch("SELECT 1")
    assert begun(writer, "one", "journal", 0, 0) == NEW_INDEX
    assert rows_of(reader) == {}
    writer.mark(NEW_INDEX, time.time_ns() // 1000)
    monkeypatch.setattr(postgres_store, "SCHEMA_VERSION", SCHEMA_VERSION)
    older = PostgresWriter(parse_location(database))
    with pytest.raises(IndexUnavailable, match="newer projectors write"):
        begun(older, "two", "journal", 0, 0)
    monkeypatch.setattr(postgres_store, "STALE_AFTER", 0.0)
    assert begun(older, "two", "journal", 0, 0) == NEW_INDEX
    older.close()


def test_what_else_is_in_the_database_stays(database: str, postgres: PostgresServer) -> None:
    """Tables of others with the same names are neither read nor dropped."""
    postgres.execute(database, "CREATE TABLE operation (id TEXT)")
    postgres.execute(database, "CREATE TABLE version (number INTEGER)")
    writer = PostgresWriter(parse_location(database))
    with pytest.raises(IndexUnavailable, match="there is no index yet"):
        PostgresReader(parse_location(database)).coverage()
    begun(writer, "one", "journal", 0, 0)
    writer.write([row("a")])
    assert begun(writer, "one", "another", 0, 0) == NEW_INDEX
    assert postgres.execute(database, "SELECT count(*) FROM public.operation") == [(0,)]
    writer.close()


def test_a_user_without_rights(postgres: PostgresServer, database: str) -> None:
    """Without pg_trgm and the right to make it the writer says what to do; it never shows the password."""
    postgres.execute(database, "CREATE ROLE poor LOGIN PASSWORD 's3cr3t'")
    url = database.replace("opstream@", "poor:s3cr3t@")
    with pytest.raises((IndexUnusable, IndexUnavailable)) as found:
        PostgresWriter(parse_location(url)).open("one")
    assert "pg_trgm" in str(found.value)
    assert "s3cr3t" not in str(found.value)


def test_a_reader_can_not_write_and_does_not_wait_for_ever(writer: PostgresWriter, reader: PostgresReader) -> None:
    """No statement of a reader changes anything, and each ends after its time."""
    with pytest.raises(IndexUnavailable, match="read-only"):
        reader.fetch("DELETE FROM operation")
    with pytest.raises(QueryTimeout):
        reader.fetch("SELECT pg_sleep(60)", timeout=0.05)
    assert reader.fetch("SELECT 1") == [(1,)]


def test_writers_at_once(database: str, reader: PostgresReader) -> None:
    """Writers with the same operations, in any order, end with the last state of each, and none fails."""
    writers = [PostgresWriter(parse_location(database)) for _ in range(3)]
    failures: list[BaseException] = []

    def work(writer: PostgresWriter, seed: int) -> None:
        chance = random.Random(seed)
        try:
            begun(writer, f"{seed}", "journal", 0, 0)
            for _ in range(30):
                ids = chance.sample(range(40), 20)
                writer.write([row(f"{one}", chance.randint(1, 90), labels='{"k":"v"}') for one in ids])
                writer.expire(AT, 10)
            writer.write([row(f"{one}", 100, attempt=9, labels='{"k":"v"}') for one in range(40)])
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(error)
        finally:
            writer.close()

    threads = [threading.Thread(target=work, args=(one, number)) for number, one in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = rows_of(reader)
    assert {one.attempt for one in found.values()} == {9}
    assert len(labels_of(reader)) == len(found) == 40


async def test_two_projectors_and_a_server_that_is_away(
    link: Connection, journal: Journal, postgres: PostgresServer, database: str
) -> None:
    """Two projectors share work and index. While the server is down the view goes on; then nothing is missing."""
    location = parse_location(database)
    reader = PostgresReader(location)
    loops = []
    for name in ("one", "two"):
        view = SnapshotStore(link)
        keeper = IndexKeeper(
            link,
            journal,
            PostgresWriter(location),
            name=name,
            shown=location.shown,
            last_revision=lambda view=view: view.last_revision,
            conditions=Conditions(),
            now=utc_now,
            interval=0.05,
        )
        loops += [projector(link, journal, view, index=keeper), keeper]
    ids = [f"op-{number}" for number in range(90)]
    async with running(*loops):
        open_ones = [await begin(journal, one) for one in ids[:30]]
        await settled(link)
        await eventually(lambda: _is_complete(reader), within=20)
        await asyncio.to_thread(postgres.stop)
        await asyncio.gather(*(extend(journal, one, started(), RESULT) for one in open_ones))
        await asyncio.gather(*(live(journal, one, *LIFE) for one in ids[30:60]))
        await settled(link)
        await asyncio.to_thread(postgres.start)
        await asyncio.gather(*(live(journal, one, *LIFE) for one in ids[60:]))
        await settled(link)
        wanted = await wanted_rows(journal, ids)
        await eventually(lambda: _rows(reader) == wanted, within=30)
    reader.close()


def _is_complete(reader: PostgresReader) -> bool:
    try:
        return reader.coverage().is_complete
    except IndexUnavailable:
        return False


def _rows(reader: PostgresReader) -> dict[str, OperationRow]:
    try:
        return rows_of(reader)
    except IndexUnavailable:
        return {}
