"""The tables of the index and their indexes, for both databases.

The primary key of `operation` is `place`, which is the order of creation (`operation_row.place_of`). SQLite keeps the
table in that order and ends each entry of an index with it; in PostgreSQL the indexes name it. So with any of these
indexes the rows of one value come in the order of `createdAt`, and a page begins where the last one ended, without
sorting:

- `operation_tenant`: by `createdAt`, without a condition
- `operation_kind`: resource, action and status
- `operation_status`: a status but `Succeeded`; with `_finished`, by `finishedAt`
- `operation_finished`: by `finishedAt`
- `operation_caller`: a caller; with `_finished`, by `finishedAt`
- `operation_code`, `operation_resource_id`, `operation_retry_of`, `operation_parent`: only rows that have one
- `label`: a key and a value
- `search`: a part of `message`, of three characters or more, of all tenants

But for that one, `operation_retry_of` and `operation_parent` they begin with the tenant: what one tenant has must not
cost the time of another one's list (docs/adr/0059).

In SQLite a row is found by its place, since that follows from the operation: an index of ids, which are random, would
cost as much as all the others (docs/adr/0058).
"""

from __future__ import annotations

from typing import Final

from .operation_row import OperationRow

SCHEMA_VERSION: Final = 3
"""Raise it with any change of the tables, or of what a row holds. An index of another version is made again."""

COLUMNS: Final = OperationRow._fields
CHANGING: Final = (
    "status",
    "code",
    "message",
    "started_at",
    "finished_at",
    "updated_at",
    "attempt",
    "position",
    "expires_at",
)
"""The columns that a later event can change; an update leaves the others alone, and with them most of the indexes."""

_BIGINT: Final = "BIGINT"
_TYPES: Final = {
    "place": "BIGINT NOT NULL PRIMARY KEY",
    "id": "TEXT NOT NULL",
    "own_id": "TEXT NOT NULL",
    "tenant": "TEXT NOT NULL",
    "caller": "TEXT NOT NULL",
    "resource": "TEXT NOT NULL",
    "action": "TEXT NOT NULL",
    "resource_id": "TEXT NOT NULL",
    "status": "TEXT NOT NULL",
    "code": "TEXT",
    "message": "TEXT",
    "created_at": "BIGINT NOT NULL",
    "start_at": _BIGINT,
    "started_at": _BIGINT,
    "finished_at": _BIGINT,
    "updated_at": "BIGINT NOT NULL",
    "attempt": "INTEGER NOT NULL",
    "version": "INTEGER NOT NULL",
    "labels": "TEXT",
    "retry_of": "TEXT",
    "parent": "TEXT",
    "position": "BIGINT NOT NULL",
    "expires_at": "BIGINT NOT NULL",
}

_INDEXES: Final = (
    ("operation_tenant", "tenant", ""),
    ("operation_kind", "tenant, resource, action, status", ""),
    ("operation_status", "tenant, status", "status <> 'Succeeded'"),
    ("operation_status_finished", "tenant, status, finished_at", "finished_at IS NOT NULL AND status <> 'Succeeded'"),
    ("operation_finished", "tenant, finished_at", "finished_at IS NOT NULL"),
    ("operation_caller", "tenant, caller", "caller <> ''"),
    ("operation_caller_finished", "tenant, caller, finished_at", "finished_at IS NOT NULL AND caller <> ''"),
    ("operation_code", "tenant, code", "code IS NOT NULL"),
    ("operation_resource_id", "tenant, resource_id", "resource_id <> ''"),
    ("operation_retry_of", "retry_of", "retry_of IS NOT NULL"),
    ("operation_parent", "parent", "parent IS NOT NULL"),
    ("operation_expires", "expires_at", ""),
)
_OPEN: Final = ("operation_open", "place", "finished_at IS NULL")
_OPEN_TEXT: Final = ("operation_open_text", "place", "finished_at IS NULL AND message IS NOT NULL")

SELECT_NEWEST: Final = (
    "SELECT max(position) FROM (SELECT position FROM operation ORDER BY place DESC LIMIT 1000) AS newest"
)
"""The highest position among the operations that were created last; among all it would be a walk over the table."""
WRITER_COLUMNS: Final = "name, revision, complete_until, is_complete, seen_at"
_WRITER: Final = """CREATE TABLE writer (
  name TEXT NOT NULL PRIMARY KEY, revision BIGINT NOT NULL, is_complete INTEGER NOT NULL,
  complete_until BIGINT NOT NULL, seen_at BIGINT NOT NULL)"""
_SOURCE: Final = "CREATE TABLE source (created TEXT NOT NULL)"

_OPERATION: Final = f"CREATE TABLE operation ({', '.join(f'{name} {kind}' for name, kind in _TYPES.items())})"


def _index(name: str, columns: str, condition: str) -> str:
    return f"CREATE INDEX {name} ON operation ({columns})" + (f" WHERE {condition}" if condition else "")


SQLITE_TABLES: Final = (
    _OPERATION.replace(_TYPES["place"], "INTEGER PRIMARY KEY"),
    *(_index(*one) for one in (*_INDEXES, _OPEN, _OPEN_TEXT)),
    """CREATE TABLE label (
  tenant TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, place BIGINT NOT NULL,
  PRIMARY KEY (tenant, key, value, place)) WITHOUT ROWID""",
    # The text lies in `operation`; `search` has only the trigrams. A row of it must be deleted with its old text.
    "CREATE VIRTUAL TABLE search USING fts5(message, content='operation', content_rowid='place', tokenize='trigram')",
    """CREATE TRIGGER operation_delete_text AFTER DELETE ON operation WHEN old.message IS NOT NULL BEGIN
  INSERT INTO search (search, rowid, message) VALUES ('delete', old.place, old.message); END""",
    """CREATE TRIGGER operation_delete_labels AFTER DELETE ON operation WHEN old.labels IS NOT NULL BEGIN
  DELETE FROM label WHERE (tenant, key, value, place) IN
  (SELECT old.tenant, key, value, old.place FROM json_each(old.labels)); END""",
    """CREATE TRIGGER operation_delete_displaced AFTER DELETE ON operation BEGIN
  DELETE FROM displaced WHERE place = old.place AND id = old.id; END""",
    # Operations whose own place belongs to another one of the same microsecond.
    "CREATE TABLE displaced (place INTEGER PRIMARY KEY, id TEXT NOT NULL)",
    _WRITER,
    _SOURCE,
)

POSTGRES_SCHEMA: Final = "opstream_index"
"""The schema that holds the tables, so that the database may hold other things too."""
POSTGRES_TABLES: Final = (
    _OPERATION,
    "CREATE UNIQUE INDEX operation_id ON operation (id)",
    *(_index(name, f"{columns}, place", condition) for name, columns, condition in _INDEXES),
    _index(*_OPEN),
    "CREATE INDEX operation_message ON operation USING gin (message gin_trgm_ops) WHERE message IS NOT NULL",
    """CREATE TABLE label (
  tenant TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, place BIGINT NOT NULL,
  PRIMARY KEY (tenant, key, value, place))""",
    _WRITER,
    _SOURCE,
    "CREATE TABLE version (number INTEGER NOT NULL)",
)
