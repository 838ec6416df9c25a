"""An index in a schema of PostgreSQL, for several projectors and API processes.

A commit does not wait for the disk here either. After a crash of the server what was written last may be gone, together
with the mark of its writer, since both are in the same log in the same order.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import errors as sql_errors

from .errors import IndexUnavailable, IndexUnusable, QueryTimeout
from .location import IndexLocation
from .operation_row import OperationRow
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
from .tables import (
    CHANGING,
    COLUMNS,
    POSTGRES_SCHEMA,
    POSTGRES_TABLES,
    SCHEMA_VERSION,
    SELECT_NEWEST,
    WRITER_COLUMNS,
)

logger = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 5
_STATEMENT_SECONDS: Final = 30.0
_LOCK: Final = 0x6F707374
"""Advisory lock: one process at a time makes the tables."""
_NUMBERS: Final = frozenset(
    {
        *("place", "created_at", "start_at", "started_at", "finished_at", "updated_at"),
        *("attempt", "version", "position", "expires_at"),
    }
)
_ARRAYS: Final = ", ".join(f"%s::{'bigint' if name in _NUMBERS else 'text'}[]" for name in COLUMNS)
_ON_CONFLICT: Final = (
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in CHANGING)} "
    "WHERE excluded.position > operation.position"
)
_INSERT: Final = f"INSERT INTO operation ({', '.join(COLUMNS)})"
_UPSERT: Final = f"{_INSERT} SELECT * FROM unnest({_ARRAYS}) {_ON_CONFLICT}"
_UPSERT_ONE: Final = f"{_INSERT} VALUES ({', '.join('%s' for _ in COLUMNS)}) {_ON_CONFLICT}"
_LABELS: Final = (
    "INSERT INTO label SELECT tenant, found.key, found.value, place "
    "FROM operation, json_each_text(labels::json) AS found "
    "WHERE operation.id = ANY(%s) AND labels IS NOT NULL ON CONFLICT DO NOTHING"
)
_DELETE: Final = (
    "WITH gone AS (DELETE FROM operation WHERE place IN (SELECT place FROM operation WHERE {} FOR UPDATE SKIP LOCKED) "
    "RETURNING tenant, place, labels), "
    "unlabeled AS (DELETE FROM label USING gone, json_each_text(gone.labels::json) AS found "
    "WHERE gone.labels IS NOT NULL AND label.tenant = gone.tenant "
    "AND label.key = found.key AND label.value = found.value "
    "AND label.place = gone.place) SELECT count(*) FROM gone"
)
_DELETE_EXPIRED: Final = _DELETE.format("expires_at <= %s LIMIT %s")
_DELETE_PLACES: Final = _DELETE.format("place = ANY(%s)")


class PostgresWriter:
    """The writer of a database.

    Args:
        location: of it.
    """

    def __init__(self, location: IndexLocation) -> None:
        self._location = location
        self._database: psycopg.Connection[Any] | None = None
        self._name = ""

    def open(self, name: str) -> IndexOrigin:
        """See `IndexWriter.open`."""
        self.close()
        self._name = name
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> IndexOrigin:
        with _translated(self._location):
            self._database = _connect(self._location)
            with self._database.transaction():
                self._execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                self._prepare()
                source = self._execute("SELECT created FROM source").fetchone()
                revision = self._execute("SELECT max(revision) FROM writer").fetchall()[0][0]
                position = self._execute(SELECT_NEWEST).fetchall()[0][0]
        return IndexOrigin(source=source[0] if source else "", revision=revision or 0, position=position or 0)

    def make_again(self) -> None:
        """See `IndexWriter.make_again`."""
        with self._transaction():
            self._execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            self._make_tables()

    def begin(self, source: str) -> Debt:
        """See `IndexWriter.begin`."""
        with self._transaction():
            self._execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if self._execute("SELECT 1 FROM source").fetchone() is None:
                self._execute("INSERT INTO source VALUES (%s)", (source,))
            return debt_of(self._execute(f"SELECT {WRITER_COLUMNS} FROM writer").fetchall()) or NEW_INDEX

    def write(self, rows: Sequence[OperationRow]) -> None:
        """See `IndexWriter.write`."""
        rows = sorted(rows, key=lambda row: row.id)  # in one order, so that two writers don't wait for each other
        labeled = [row.id for row in rows if row.labels is not None]
        with self._transaction() as database:
            try:
                with database.transaction():
                    self._execute(_UPSERT, [list(values) for values in zip(*rows, strict=True)])
            except sql_errors.UniqueViolation:  # another operation has the place of one
                for row in rows:
                    self._write_alone(database, row)
            if labeled:
                self._execute(_LABELS, (labeled,))

    def mark(self, debt: Debt, now: int) -> None:
        """See `IndexWriter.mark`."""
        with self._transaction():
            self._execute(
                f"INSERT INTO writer ({WRITER_COLUMNS}) VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET "
                "revision = excluded.revision, complete_until = excluded.complete_until, "
                "is_complete = excluded.is_complete, seen_at = excluded.seen_at",
                (self._name, debt.revision, debt.complete_until, int(debt.is_complete), now),
            )

    def stale(self, now: int) -> Debt | None:
        """See `IndexWriter.stale`."""
        with self._transaction():
            return debt_of(
                self._execute(
                    f"SELECT {WRITER_COLUMNS} FROM writer WHERE name <> %s AND seen_at < %s",
                    (self._name, now - int(STALE_AFTER * 1e6)),
                ).fetchall()
            )

    def forget(self, debt: Debt, now: int) -> None:
        """See `IndexWriter.forget`."""
        last = now - int(FORGET_AFTER * 1e6)
        with self._transaction():
            for name, seen_at in debt.writers:
                if name != self._name and seen_at < last:
                    self._execute("DELETE FROM writer WHERE name = %s AND seen_at = %s", (name, seen_at))

    def open_operations(self, after: int, count: int) -> list[tuple[int, str, int]]:
        """See `IndexWriter.open_operations`."""
        with self._transaction():
            return self._execute(
                "SELECT place, id, position FROM operation WHERE finished_at IS NULL AND place > %s "
                "ORDER BY place LIMIT %s",
                (after, count),
            ).fetchall()

    def remove(self, places: Sequence[int]) -> None:
        """See `IndexWriter.remove`."""
        with self._transaction():
            self._execute(_DELETE_PLACES, (list(places),))

    def expire(self, now: int, count: int) -> int:
        """See `IndexWriter.expire`."""
        with self._transaction():
            return int(self._execute(_DELETE_EXPIRED, (now, count)).fetchall()[0][0])

    def close(self) -> None:
        """See `IndexWriter.close`."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _execute(self, statement: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        if self._database is None:
            raise IndexUnavailable(f"the index {self._location.shown} is not open")
        return self._database.execute(statement, parameters or None)

    def _prepare(self) -> None:
        """Make the tables, or drop those of another version first."""
        found = self._execute("SELECT to_regclass(%s)::text", (f"{POSTGRES_SCHEMA}.version",)).fetchall()[0][0]
        if found is not None:
            version = self._execute("SELECT number FROM version").fetchone()
            if version == (SCHEMA_VERSION,):
                return
            alive = self._execute(
                "SELECT count(*) FROM writer WHERE seen_at > extract(epoch FROM now()) * 1000000 - %s",
                (int(STALE_AFTER * 1e6),),
            ).fetchall()[0][0]
            if version is not None and version[0] > SCHEMA_VERSION and alive:
                raise IndexUnavailable(
                    f"newer projectors write the index {self._location.shown}: update this one, or stop them"
                )
        self._make_tables()

    def _make_tables(self) -> None:
        found = self._execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'").fetchall()
        if not found:
            try:
                self._execute("CREATE EXTENSION pg_trgm WITH SCHEMA public")
            except (
                sql_errors.InsufficientPrivilege,
                sql_errors.FeatureNotSupported,
                sql_errors.UndefinedFile,
            ) as error:
                raise IndexUnusable(
                    f"the index {self._location.shown} needs the extension pg_trgm: install PostgreSQL's contrib "
                    "package, and have the database's owner run CREATE EXTENSION pg_trgm"
                ) from error
        schema = self._execute(
            "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
            "WHERE extname = 'pg_trgm'"
        ).fetchall()[0][0]
        self._execute(f"DROP SCHEMA IF EXISTS {POSTGRES_SCHEMA} CASCADE")
        self._execute(f"CREATE SCHEMA {POSTGRES_SCHEMA}")
        self._execute(f'SET LOCAL search_path TO {POSTGRES_SCHEMA}, "{schema}"')
        for statement in POSTGRES_TABLES:
            self._execute(statement)
        self._execute("INSERT INTO version VALUES (%s)", (SCHEMA_VERSION,))

    def _write_alone(self, database: psycopg.Connection[Any], row: OperationRow) -> None:
        """Write a row whose place may be taken."""
        while True:
            try:
                with database.transaction():
                    self._execute(_UPSERT_ONE, row)
            except sql_errors.UniqueViolation:
                row = row._replace(place=row.place + 1)
            else:
                return

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with _translated(self._location):
            if self._database is None:
                raise IndexUnavailable(f"the index {self._location.shown} is not open")
            with self._database.transaction():
                yield self._database


class PostgresReader:
    """A reader of a database, which it can't change.

    Args:
        location: of it.
    """

    placeholder = "%s"

    def __init__(self, location: IndexLocation) -> None:
        self._location = location
        self._database: psycopg.Connection[Any] | None = None
        self._timeout = 0.0

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, timeout: float = 5.0) -> list[tuple[Any, ...]]:
        """See `IndexReader.fetch`."""
        with _translated(self._location):
            database = self._connected()
            try:
                if timeout != self._timeout:
                    database.execute("SELECT set_config('statement_timeout', %s, false)", (str(int(timeout * 1000)),))
                    self._timeout = timeout
                return database.execute(statement, parameters or None).fetchall()
            except sql_errors.QueryCanceled as error:
                raise QueryTimeout(f"the index did not answer within {timeout:g} s") from error
            except psycopg.OperationalError:
                self.close()
                raise

    def coverage(self) -> Coverage:
        """See `IndexReader.coverage`."""
        return coverage_of(self.fetch(SELECT_COVERAGE))

    def close(self) -> None:
        """See `IndexReader.close`."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _connected(self) -> psycopg.Connection[Any]:
        if self._database is not None:
            return self._database
        database = _connect(self._location)
        database.execute("SET default_transaction_read_only = on")
        found = database.execute("SELECT to_regclass(%s)::text", (f"{POSTGRES_SCHEMA}.version",)).fetchall()[0][0]
        version = None if found is None else database.execute("SELECT number FROM version").fetchone()
        if version != (SCHEMA_VERSION,):
            database.close()
            text = "there is no index yet: does a projector run with this --index?"
            if version is not None:
                text = "it is of another version: update projector and API"
            raise IndexUnavailable(f"the index {self._location.shown}: {text}")
        self._database, self._timeout = database, 0.0
        return database


def _connect(location: IndexLocation) -> psycopg.Connection[Any]:
    database = psycopg.connect(
        location.url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="opstream"
    )
    database.execute(f"SET search_path TO {POSTGRES_SCHEMA}")
    database.execute("SET synchronous_commit = off")
    database.execute(f"SET statement_timeout = {int(_STATEMENT_SECONDS * 1000)}")
    return database


@contextlib.contextmanager
def _translated(location: IndexLocation) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        text = str(error).strip().splitlines()
        raise IndexUnavailable(f"the index {location.shown} can't be used: {text[0] if text else error!r}") from error
