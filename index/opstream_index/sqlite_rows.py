"""Writes rows into the tables of SQLite, within a transaction: most of them together, the special ones each by itself.

Special are rows with a text or with labels, which other tables hold too, and the few whose place belongs to another
operation of the same microsecond.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from .operation_row import OperationRow
from .tables import CHANGING, COLUMNS

_UPSERT: Final = (
    f"INSERT INTO operation ({', '.join(COLUMNS)}) VALUES ({', '.join('?' for _ in COLUMNS)}) "
    f"ON CONFLICT (place) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in CHANGING)} "
    "WHERE excluded.position > operation.position AND excluded.id = operation.id"
)
_OPEN_TEXTS: Final = (
    "SELECT place, id FROM operation INDEXED BY operation_open_text WHERE finished_at IS NULL AND message IS NOT NULL "
    "AND place IN (SELECT value FROM json_each(?))"
)
_PLACES: Final = "SELECT place, id FROM operation WHERE place IN (SELECT value FROM json_each(?))"
_encode: Final = msgspec.json.Encoder().encode
_decode_labels: Final = msgspec.json.Decoder(dict[str, str]).decode


def write_rows(database: sqlite3.Connection, rows: Sequence[OperationRow]) -> None:
    """Insert or update rows of different operations that are newer than what the table has.

    Args:
        database: in a transaction.
        rows: the rows.

    Raises:
        sqlite3.Error: something is not written; roll back.
    """
    displaced = {one: place for place, one in database.execute("SELECT place, id FROM displaced")}
    if displaced:
        rows = [row._replace(place=displaced.get(row.id, row.place)) for row in rows]
    texts = {one for _, one in database.execute(_OPEN_TEXTS, (_places(rows),))}
    plain: list[OperationRow] = []
    special: list[OperationRow] = []
    for row in rows:
        is_special = row.message is not None or row.labels is not None or row.id in texts
        (special if is_special else plain).append(row)
    if plain and database.executemany(_UPSERT, plain).rowcount < len(plain):
        # Most likely some are no news. But one may be missing, because its place belongs to another operation.
        owners = dict(database.execute(_PLACES, (_places(plain),)).fetchall())
        special.extend(row for row in plain if owners.get(row.place) != row.id)
    for row in special:
        _write_special(database, row)


def _places(rows: Sequence[OperationRow]) -> bytes:
    return _encode([row.place for row in rows])


def _write_special(database: sqlite3.Connection, row: OperationRow) -> None:
    place = row.place
    while True:
        found = database.execute("SELECT id, position, message FROM operation WHERE place = ?", (place,)).fetchone()
        if found is None or found[0] == row.id:
            break
        place += 1
    if found is not None and found[1] >= row.position:
        return
    database.execute(_UPSERT, row._replace(place=place))
    text = found[2] if found is not None else None
    if text != row.message:
        if text is not None:
            database.execute("INSERT INTO search (search, rowid, message) VALUES ('delete', ?, ?)", (place, text))
        if row.message is not None:
            database.execute("INSERT INTO search (rowid, message) VALUES (?, ?)", (place, row.message))
    if found is not None:
        return
    if place != row.place:
        database.execute("INSERT INTO displaced (place, id) VALUES (?, ?)", (place, row.id))
    if row.labels is not None:
        labels = _decode_labels(row.labels)
        found = [(row.tenant, *label, place) for label in labels.items()]
        database.executemany("INSERT INTO label VALUES (?, ?, ?, ?)", found)
