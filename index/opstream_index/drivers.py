"""Opens an index by its location. The client of PostgreSQL is loaded only where it is used."""

from __future__ import annotations

from .errors import IndexUnusable
from .location import IndexLocation
from .store import IndexReader, IndexWriter

_MISSING = "an index in PostgreSQL needs psycopg: pip install 'opstream[postgres]'"


def open_writer(location: IndexLocation) -> IndexWriter:
    """Return a writer, which connects when it is opened.

    Raises:
        IndexUnusable: what its database needs is not installed.
    """
    if location.path:
        from .sqlite_store import SqliteWriter

        return SqliteWriter(location.path)
    try:
        from .postgres_store import PostgresWriter
    except ImportError as error:
        raise IndexUnusable(_MISSING) from error
    return PostgresWriter(location)


def open_reader(location: IndexLocation) -> IndexReader:
    """Return a reader, which connects with its first query.

    Raises:
        IndexUnusable: what its database needs is not installed.
    """
    if location.path:
        from .sqlite_store import SqliteReader

        return SqliteReader(location.path)
    try:
        from .postgres_store import PostgresReader
    except ImportError as error:
        raise IndexUnusable(_MISSING) from error
    return PostgresReader(location)
