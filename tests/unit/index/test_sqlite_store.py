"""An index in a file of SQLite."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opstream_index import sqlite_store
from opstream_index.errors import IndexUnavailable, IndexUnusable, QueryTimeout
from opstream_index.operation_row import OperationRow, place_of
from opstream_index.sqlite_store import SqliteReader, SqliteWriter
from opstream_index.store import NEW_INDEX, Coverage, Debt
from opstream_index.tables import SCHEMA_VERSION
from tests.support.index.rows import begun, labels_of, rows_of

pytestmark = pytest.mark.unit

AT = 1_800_000_000_000_000
FOREVER = 2**62


def row(one: str, position: int = 1, *, created: int = AT, **changes: object) -> OperationRow:
    """A row of an operation that runs; with `position` it is another state."""
    values = dict.fromkeys(OperationRow._fields)
    values |= {"place": place_of(created, one), "id": one, "own_id": one, "tenant": "", "caller": ""}
    values |= {"resource": "book", "action": "start", "resource_id": "", "status": "Running", "created_at": created}
    values |= {"updated_at": created, "attempt": 1, "version": 1, "position": position, "expires_at": FOREVER}
    return OperationRow(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "index.db")


@pytest.fixture
def writer(path: str) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(path)
    assert begun(writer, "one", "journal", 0, 0) == NEW_INDEX
    yield writer
    writer.close()


@pytest.fixture
def reader(path: str) -> Iterator[SqliteReader]:
    reader = SqliteReader(path)
    yield reader
    reader.close()


def found_by(reader: SqliteReader, text: str) -> list[str]:
    rows = reader.fetch(
        "SELECT id FROM search JOIN operation ON place = search.rowid WHERE search MATCH ? ORDER BY search.rowid",
        (f'"{text}"',),
    )
    return [one for (one,) in rows]


def check_search(path: str) -> None:
    """Check that the trigrams are exactly those of the texts in the rows: made again, they are the same."""
    database = sqlite3.connect(path)
    database.execute("CREATE VIRTUAL TABLE temp.found USING fts5vocab(main, search, instance)")
    listed = "SELECT term, doc, offset FROM found ORDER BY 1, 2, 3"
    before = database.execute(listed).fetchall()
    database.execute("INSERT INTO search (search) VALUES ('rebuild')")
    assert database.execute(listed).fetchall() == before
    database.close()


def test_rows_come_back_as_they_were(writer: SqliteWriter, reader: SqliteReader) -> None:
    """Every column of every row is stored, also texts that look like SQL."""
    rows = [row("a", message="it's; DROP TABLE operation; --"), row("b", code="E", labels='{"k":"v"}', attempt=3)]
    writer.write(rows)
    assert rows_of(reader) == {one.id: one for one in rows}
    assert labels_of(reader) == {("k", "v", "b")}


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(1, 9)), cut=st.integers(1, 8))
def test_writes_commute(order: list[int], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the order in which states arrive, and however often, the last one counts, with its text and labels."""
    path = str(tmp_path_factory.mktemp("index") / "index.db")
    states = {
        number: row("a", number, message=f"text {number}" if number % 3 else None, labels='{"k":"v"}')
        for number in range(1, 9)
    }
    writer, reader = SqliteWriter(path), SqliteReader(path)
    begun(writer, "one", "journal", 0, 0)
    for number in [*order, *order[:cut]]:
        writer.write([states[number], row(f"other {number}")])
    assert rows_of(reader)["a"] == states[8]
    assert found_by(reader, "text 8") == ["a"]
    assert found_by(reader, "text 7") == []
    assert labels_of(reader) == {("k", "v", "a")}
    check_search(path)
    writer.close()
    reader.close()


def test_a_text_that_is_gone_is_not_found(writer: SqliteWriter, reader: SqliteReader, path: str) -> None:
    """An operation that succeeded is not found by what it reported before."""
    writer.write([row("a", 1, message="halfway there"), row("b", 1, message="HALFWAY there, too")])
    assert found_by(reader, "halfway") == ["a", "b"] or found_by(reader, "halfway") == ["b", "a"]
    writer.write([row("a", 2, status="Succeeded", finished_at=AT + 5)])
    assert found_by(reader, "halfway") == ["b"]
    check_search(path)


def test_operations_of_one_place_are_kept_apart(writer: SqliteWriter, reader: SqliteReader) -> None:
    """Two operations with the same place have a row each, whatever follows, in whichever order."""
    ids = iter(range(100_000))
    first = "a0"
    second = next(f"b{number}" for number in ids if place_of(AT, f"b{number}") == place_of(AT, first))
    third = next(f"c{number}" for number in ids if place_of(AT, f"c{number}") == place_of(AT, first))
    writer.write([row(first), row(second), row(third)])
    writer.write([row(third, 2, status="Failed", message="it broke"), row(second, 2, attempt=2)])
    found = rows_of(reader)
    assert {one: (found[one].attempt, found[one].status, found[one].message) for one in found} == {
        first: (1, "Running", None),
        second: (2, "Running", None),
        third: (1, "Failed", "it broke"),
    }
    assert len({one.place for one in found.values()}) == 3
    writer.remove([found[first].place])
    writer.write([row(second, 3, attempt=3)])
    assert sorted(rows_of(reader)) == [second, third]
    assert rows_of(reader)[second].attempt == 3
    assert found_by(reader, "it broke") == [third]


def test_rows_end_with_their_retention(writer: SqliteWriter, reader: SqliteReader, path: str) -> None:
    """Expired rows go, some at a time, with what other tables have of them."""
    labels = '{"k":"v"}'
    writer.write([row(f"{number}", message="gone", labels=labels, expires_at=AT + number) for number in range(10)])
    assert [writer.expire(AT + 6, 4) for _ in range(3)] == [4, 3, 0]
    assert sorted(rows_of(reader)) == ["7", "8", "9"]
    assert labels_of(reader) == {("k", "v", one) for one in "789"}
    assert reader.fetch("SELECT count(*) FROM label") == [(3,)]
    check_search(path)


def test_all_of_a_batch_or_nothing(writer: SqliteWriter, reader: SqliteReader) -> None:
    """A row that can't be stored takes its batch with it."""
    writer.write([row("a")])
    with pytest.raises(IndexUnavailable):
        writer.write([row("a", 2, attempt=2), row("b", status=None)])
    assert rows_of(reader) == {"a": row("a")}


def test_the_mark_comes_back(writer: SqliteWriter, reader: SqliteReader, path: str) -> None:
    """The next process gets the lowest mark of those before it, and the reader says how complete the index is."""
    assert reader.coverage() == Coverage(is_complete=False, complete_until=0)
    writer.mark(Debt(revision=7, complete_until=AT, is_complete=True), AT)
    other = SqliteWriter(path)
    assert begun(other, "two", "journal", 9, 9) == Debt(
        revision=7, complete_until=AT, is_complete=True, writers=(("one", AT),)
    )
    other.mark(Debt(revision=5, complete_until=AT - 5, is_complete=False), AT + 1)
    assert reader.coverage() == Coverage(is_complete=False, complete_until=AT - 5)
    assert reader.coverage().lag(AT + 1_000_000) == pytest.approx(1.000005)
    other.close()


def test_dead_writers(writer: SqliteWriter, path: str) -> None:
    """A silent writer is found after a while, and forgotten only if it stays silent."""
    minute = 60_000_000
    other = SqliteWriter(path)
    begun(other, "two", "journal", 0, 0)
    writer.mark(Debt(revision=3, complete_until=1, is_complete=True), AT)
    other.mark(Debt(revision=9, complete_until=2, is_complete=True), AT + minute)
    assert other.stale(AT + minute) is None
    owed = other.stale(AT + minute + 1)
    assert owed == Debt(revision=3, complete_until=1, is_complete=True, writers=(("one", AT),))
    writer.mark(Debt(revision=3, complete_until=1, is_complete=True), AT + 1)
    other.forget(owed, AT + 2 * minute)
    assert len(begun(other, "two", "journal", 9, 9).writers) == 2
    again = other.stale(AT + 2 * minute)
    assert again is not None
    other.forget(again, AT + 2)
    assert len(begun(other, "two", "journal", 9, 9).writers) == 2
    other.forget(again, AT + 2 * minute)
    assert begun(other, "two", "journal", 9, 9).writers == (("two", AT + minute),)
    other.close()


@pytest.mark.parametrize(
    ("source", "revision", "position"), [("another", 99, 99), ("journal", 6, 99), ("journal", 99, 4)]
)
def test_an_index_of_another_journal_is_made_again(
    writer: SqliteWriter, reader: SqliteReader, path: str, source: str, revision: int, position: int
) -> None:
    """Rows of another journal, or of one that was set back since, are dropped."""
    writer.write([row("a", 5)])
    writer.mark(Debt(revision=7, complete_until=AT, is_complete=True), AT)
    other = SqliteWriter(path)
    assert begun(other, "two", source, revision, position) == NEW_INDEX
    assert rows_of(reader) == {}
    other.close()


def test_an_index_of_another_version_is_made_again(
    writer: SqliteWriter, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version of the tables drops the old ones; a reader of the old version says so."""
    writer.write([row("a", message="a text", labels='{"k":"v"}')])
    writer.close()
    monkeypatch.setattr(sqlite_store, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(IndexUnavailable, match="is of another version"):
        SqliteReader(path).fetch("SELECT 1")
    assert begun(writer, "one", "journal", 0, 0) == NEW_INDEX
    reader = SqliteReader(path)
    assert (rows_of(reader), labels_of(reader), found_by(reader, "a text")) == ({}, set(), [])
    reader.close()


def test_a_file_of_something_else_is_never_touched(tmp_path: Path) -> None:
    """A database of another program and a file that is none are refused, and stay as they are."""
    database = tmp_path / "other.db"
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE operation (id TEXT)")
    other.close()
    text = tmp_path / "notes.txt"
    text.write_text("my only copy of it" * 100)
    for path in (database, text):
        before = path.read_bytes()
        with pytest.raises(IndexUnusable, match="name another file"):
            SqliteWriter(str(path)).open("one")
        assert path.read_bytes() == before
    with pytest.raises(IndexUnusable, match="there is no folder"):
        SqliteWriter(str(tmp_path / "no" / "index.db")).open("one")


def test_the_file_is_for_its_user_only(writer: SqliteWriter, path: str) -> None:
    """No other user of the machine can read it."""
    writer.write([row("a")])
    files = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
    assert {one.stat().st_mode & 0o777 for one in files} == {0o600}


def test_a_damaged_file_is_made_again(writer: SqliteWriter, path: str) -> None:
    """A file whose pages are garbage is an index that is lost."""
    writer.write([row(f"{number}", message="m" * 500) for number in range(500)])
    writer.close()
    data = bytearray(Path(path).read_bytes())
    data[100:] = random.Random(7).randbytes(len(data) - 100)
    Path(path).write_bytes(data)
    assert begun(writer, "one", "journal", 0, 0) == NEW_INDEX
    writer.write([row("a")])
    assert rows_of(SqliteReader(path)) == {"a": row("a")}


def test_damage_that_shows_later(writer: SqliteWriter, path: str) -> None:
    """If it is only seen at work, the work fails, and the next time that the file is opened it is made again."""
    writer.write([row(f"{number}", message="m" * 500) for number in range(500)])
    writer.close()
    begun(writer, "one", "journal", 9, 9)
    with Path(path).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size // 2)
        file.write(random.Random(7).randbytes(size - size // 2))
    with pytest.raises(IndexUnavailable, match="is damaged"):
        writer.write([row(f"{number}", 2, message="other") for number in range(500)])
    assert begun(writer, "one", "journal", 9, 9) == NEW_INDEX
    writer.write([row("a")])
    assert rows_of(SqliteReader(path)) == {"a": row("a")}


def test_a_deleted_file_is_noticed(writer: SqliteWriter, reader: SqliteReader, path: str) -> None:
    """The writer learns at its next mark that its file is gone or another one, and readers read the new one."""
    writer.write([row("a")])
    assert sorted(rows_of(reader)) == ["a"]
    shutil.copy(path, f"{path}.copy")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    with pytest.raises(IndexUnavailable, match="deleted or replaced"):
        writer.mark(NEW_INDEX, AT)
    with pytest.raises(IndexUnavailable, match="there is no index"):
        reader.coverage()
    assert begun(writer, "one", "journal", 0, 0) == NEW_INDEX
    writer.write([row("b")])
    assert sorted(rows_of(reader)) == ["b"]


def test_a_reader_can_not_write(writer: SqliteWriter, reader: SqliteReader) -> None:
    """No statement of a reader changes anything."""
    with pytest.raises(IndexUnavailable, match=r"read.?only"):
        reader.fetch("DELETE FROM operation")


def test_a_query_ends_after_its_time(writer: SqliteWriter, reader: SqliteReader) -> None:
    """A query without end is ended, and the next one is answered."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(QueryTimeout, match=r"within 0\.05 s"):
        reader.fetch(endless, timeout=0.05)
    assert reader.fetch("SELECT 1") == [(1,)]


def test_reading_while_another_writes(writer: SqliteWriter, reader: SqliteReader) -> None:
    """A reader is answered while a transaction is open, with what was there before."""
    writer.write([row("a")])
    done = threading.Event()
    with writer._transaction() as database:
        database.execute("DELETE FROM operation")
        thread = threading.Thread(target=lambda: (rows_of(reader)["a"], done.set()))
        thread.start()
        assert done.wait(5)
        thread.join()


def test_open_operations_in_pages(writer: SqliteWriter) -> None:
    """All operations that have not ended come once, in order."""
    writer.write([row(f"{number}", number + 1, created=AT + number) for number in range(7)])
    writer.write([row("3", 10, created=AT + 3, status="Failed", finished_at=AT)])
    found, place = [], -FOREVER
    while page := writer.open_operations(place, 2):
        found += [(one, position) for _, one, position in page]
        place = page[-1][0]
    assert found == [("0", 1), ("1", 2), ("2", 3), ("4", 5), ("5", 6), ("6", 7)]
