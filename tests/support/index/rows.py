"""Rows of an index, read as they lie there, and compared with what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opstream_index.operation_row import OperationRow, row_of
from opstream_index.store import Debt, IndexReader, IndexWriter
from opstream_index.tables import COLUMNS
from opstream_journal import Journal
from opstream_schemas.operation.fold import fold_for_reader

SELECT = f"SELECT {', '.join(COLUMNS)} FROM operation"


def rows_of(reader: IndexReader) -> dict[str, OperationRow]:
    """Return all rows by id."""
    return {row.id: row for row in map(OperationRow._make, reader.fetch(SELECT))}


async def wanted_rows(journal: Journal, ids: Sequence[str]) -> dict[str, OperationRow]:
    """Return the rows that follow from the journal."""
    found = {}
    for one in ids:
        operation = fold_for_reader(None, await journal.events(one))
        assert operation is not None
        found[one] = row_of(operation)
    return found


def begun(writer: IndexWriter, name: str, source: str, revision: int, position: int) -> Debt:
    """Open an index as a projector does that has this view and journal; return what it owes."""
    origin = writer.open(name)
    if not origin.is_of(source) or origin.is_ahead_of(revision, position):
        writer.make_again()
    return writer.begin(source)


def labels_of(reader: IndexReader) -> set[tuple[Any, ...]]:
    """Return keys and values of labels with the ids of their operations."""
    return set(reader.fetch("SELECT key, value, id FROM label JOIN operation ON operation.place = label.place"))
