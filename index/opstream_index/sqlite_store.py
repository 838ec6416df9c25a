"""An index in a file of SQLite, in WAL mode: one process writes, others on the same machine read meanwhile.

A commit does not wait for the disk. After a power cut the file is whole, but what was written last may be gone, and
with it the writer's own mark: then the writer catches up from the older mark. A damaged file is an index that is lost:
it is made again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from .errors import IndexDamaged, IndexUnavailable, IndexUnusable, QueryTimeout
from .operation_row import OperationRow
from .sqlite_rows import write_rows
from .store import (
    FORGET_AFTER,
    NEW_INDEX,
    SELECT_COVERAGE,
    STALE_AFTER,
    Coverage,
    Debt,
    IndexOrigin,
    coverage_of,
    debt_of,
)
from .tables import SCHEMA_VERSION, SELECT_NEWEST, SQLITE_TABLES, WRITER_COLUMNS

logger = logging.getLogger(__name__)

APPLICATION_ID: Final = 0x6F707374
"""Marks a file as an index of opstream, so that nothing else is ever dropped."""
MIN_SQLITE: Final = (3, 34, 0)
"""The first version with trigrams."""

_BUSY_SECONDS: Final = 5.0
_CACHE_KIB: Final = 4_096
_READER_CACHE_KIB: Final = 1_024
"""Less: an API has several readers, and a list takes as long with the pages that the system keeps."""
_CHECKPOINT_PAGES: Final = 2_000
_STEPS: Final = 10_000
"""Instructions between two looks at the clock while a query runs."""
_HEADER: Final = b"SQLite format 3\0"
_ID_OFFSET: Final = 68
_SELECT_WRITERS: Final = f"SELECT {WRITER_COLUMNS} FROM writer"


class SqliteWriter:
    """The writer of a file.

    Args:
        path: of the file; its folder must exist.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._name = ""
        self._is_damaged = False
        """True if the file is to be made again when it is opened."""

    def open(self, name: str) -> IndexOrigin:
        """See `IndexWriter.open`."""
        if sqlite3.sqlite_version_info < MIN_SQLITE:
            wanted = ".".join(map(str, MIN_SQLITE))
            raise IndexUnusable(f"this Python has SQLite {sqlite3.sqlite_version}, an index needs {wanted} or newer")
        if not self._path.absolute().parent.is_dir():
            raise IndexUnusable(f"there is no folder {self._path.parent} for the index: make it, or name another one")
        if self._path.is_dir():
            raise IndexUnusable(f"{self._path} is a folder: name a file in it for the index")
        self._name = name
        try:
            return self._open()
        except IndexDamaged:
            if not is_index_file(self._path):
                raise IndexUnusable(f"{self._path} is no index of opstream: name another file, or delete it") from None
        return self._open()

    def make_again(self) -> None:
        """See `IndexWriter.make_again`."""
        with self._transaction() as database:
            _make_tables(database)

    def begin(self, source: str) -> Debt:
        """See `IndexWriter.begin`."""
        with self._transaction() as database:
            if database.execute("SELECT 1 FROM source").fetchone() is None:
                database.execute("INSERT INTO source VALUES (?)", (source,))
            return debt_of(database.execute(_SELECT_WRITERS).fetchall()) or NEW_INDEX

    def write(self, rows: Sequence[OperationRow]) -> None:
        """See `IndexWriter.write`."""
        with self._transaction() as database:
            write_rows(database, rows)

    def mark(self, debt: Debt, now: int) -> None:
        """See `IndexWriter.mark`."""
        if self._is_replaced():
            raise IndexUnavailable(f"the index {self._path} was deleted or replaced")
        with self._transaction() as database:
            database.execute(
                f"INSERT OR REPLACE INTO writer ({WRITER_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
                (self._name, debt.revision, debt.complete_until, debt.is_complete, now),
            )

    def stale(self, now: int) -> Debt | None:
        """See `IndexWriter.stale`."""
        with self._transaction() as database:
            return debt_of(
                database.execute(
                    f"{_SELECT_WRITERS} WHERE name <> ? AND seen_at < ?",
                    (self._name, now - int(STALE_AFTER * 1e6)),
                ).fetchall()
            )

    def forget(self, debt: Debt, now: int) -> None:
        """See `IndexWriter.forget`."""
        last = now - int(FORGET_AFTER * 1e6)
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM writer WHERE name = ? AND seen_at = ?",
                [one for one in debt.writers if one[0] != self._name and one[1] < last],
            )

    def open_operations(self, after: int, count: int) -> list[tuple[int, str, int]]:
        """See `IndexWriter.open_operations`."""
        with self._transaction() as database:
            return database.execute(
                "SELECT place, id, position FROM operation WHERE finished_at IS NULL AND place > ? "
                "ORDER BY place LIMIT ?",
                (after, count),
            ).fetchall()

    def remove(self, places: Sequence[int]) -> None:
        """See `IndexWriter.remove`."""
        with self._transaction() as database:
            database.executemany("DELETE FROM operation WHERE place = ?", [(place,) for place in places])

    def expire(self, now: int, count: int) -> int:
        """See `IndexWriter.expire`."""
        with self._transaction() as database:
            return database.execute(
                "DELETE FROM operation WHERE place IN (SELECT place FROM operation WHERE expires_at <= ? LIMIT ?)",
                (now, count),
            ).rowcount

    def close(self) -> None:
        """See `IndexWriter.close`."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _open(self) -> IndexOrigin:
        self.close()
        if self._is_damaged and is_index_file(self._path):
            logger.warning("the index %s is damaged, and is made again", self._path)
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._is_damaged = False
        with self._watched():
            self._database = self._connect()
            self._prepare()
            with self._transaction() as database:
                source = database.execute("SELECT created FROM source").fetchone()
                revision = database.execute("SELECT max(revision) FROM writer").fetchone()[0]
                position = database.execute(SELECT_NEWEST).fetchone()[0]
        return IndexOrigin(source=source[0] if source else "", revision=revision or 0, position=position or 0)

    def _connect(self) -> sqlite3.Connection:
        # The texts in it are for those who may read the operations.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            self._check_own(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._inode = self._path.stat().st_ino
        except BaseException:
            database.close()
            raise
        return database

    def _check_own(self, database: sqlite3.Connection) -> None:
        found = database.execute("PRAGMA application_id").fetchone()[0]
        if found != APPLICATION_ID and database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise IndexUnusable(f"{self._path} is a database of something else: name another file for the index")

    def _prepare(self) -> None:
        """Make the tables, or drop those of another version first."""
        with self._transaction() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA_VERSION:
                return
            if version:
                logger.warning(
                    "the index %s is of version %d, not %d: it is made again", self._path, version, SCHEMA_VERSION
                )
            _make_tables(database)

    def _is_replaced(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            with _translated(self._path):
                yield
        except IndexDamaged:
            self._is_damaged = True
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._database
        if database is None:
            raise IndexUnavailable(f"the index {self._path} is not open")
        with self._watched():
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


class SqliteReader:
    """A reader of a file, which it can't change.

    Args:
        path: of the file.
    """

    placeholder = "?"

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._deadline = 0.0

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, timeout: float = 5.0) -> list[tuple[Any, ...]]:
        """See `IndexReader.fetch`."""
        self._deadline = time.monotonic() + timeout
        with _translated(self._path):
            database = self._connected()
            try:
                return database.execute(statement, tuple(parameters)).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname == "SQLITE_INTERRUPT":
                    raise QueryTimeout(f"the index did not answer within {timeout:g} s") from error
                raise

    def coverage(self) -> Coverage:
        """See `IndexReader.coverage`."""
        return coverage_of(self.fetch(SELECT_COVERAGE))

    def close(self) -> None:
        """See `IndexReader.close`."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _connected(self) -> sqlite3.Connection:
        try:
            inode = self._path.stat().st_ino
        except OSError as error:
            self.close()
            raise IndexUnavailable(
                f"there is no index {self._path} yet: does a projector run with this --index?"
            ) from error
        if self._database is not None and inode == self._inode:
            return self._database
        self.close()
        database = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=1.0,
            isolation_level=None,
            check_same_thread=False,
        )
        database.execute("PRAGMA query_only = ON")
        database.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        database.set_progress_handler(lambda: time.monotonic() > self._deadline, _STEPS)
        if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            database.close()
            raise IndexUnavailable(f"{self._path} is not an index of opstream")
        if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            database.close()
            raise IndexUnavailable(f"the index {self._path} is of another version: update projector and API")
        self._database, self._inode = database, inode
        return database


def is_index_file(path: Path) -> bool:
    """Return True if a file's first bytes say that it is an index of opstream, however damaged the rest is."""
    try:
        with path.open("rb") as file:
            head = file.read(_ID_OFFSET + 4)
    except OSError:
        return False
    return head.startswith(_HEADER) and head[_ID_OFFSET:] == APPLICATION_ID.to_bytes(4, "big")


def _make_tables(database: sqlite3.Connection) -> None:
    for kind, name in database.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'trigger') AND name NOT LIKE 'sqlite_%' "
        "AND name NOT LIKE 'search_%' ORDER BY type DESC, name = 'operation'"
    ).fetchall():
        database.execute(f'DROP {kind} "{name}"')
    for statement in SQLITE_TABLES:
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise IndexDamaged(f"the index {path} is damaged: {error}") from error
        raise IndexUnavailable(f"the index {path} can't be used: {error}") from error
    except OSError as error:
        raise IndexUnavailable(f"the index {path} can't be used: {error.strerror}") from error
