"""An index in a file of SQLite, written as the projector does, and lists that read it.

index = FilledIndex(tmp_path, rows)
page = index.lists.page(ListQuery(), now=0)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from opstream_index.lists.reader import ListQuery, ListReader
from opstream_index.lists.sql import SQLITE, ListSql, Statement
from opstream_index.location import IndexLocation
from opstream_index.operation_row import OperationRow
from opstream_index.sqlite_store import SqliteReader, SqliteWriter
from opstream_index.store import NEW_INDEX
from tests.support.index.reference_list import row


class FilledIndex:
    """An index with rows."""

    def __init__(self, folder: Path, rows: Iterable[OperationRow] = ()) -> None:
        self.path = folder / "index.db"
        self.writer = SqliteWriter(str(self.path))
        self.writer.open("test")
        self.writer.begin("view")
        self.reader = SqliteReader(str(self.path))
        self.lists = ListReader(self.reader, SQLITE)
        self.write(*rows)
        self.complete_until(1)

    @property
    def location(self) -> IndexLocation:
        """As the settings of a service take it."""
        return IndexLocation(path=str(self.path))

    def write(self, *rows: OperationRow) -> None:
        """Write rows."""
        if rows:
            self.writer.write(rows)

    def complete_until(self, moment: int, *, is_complete: bool = True) -> None:
        """Mark how complete it is; the moment is in microseconds since 1970."""
        self.writer.mark(msgspec.structs.replace(NEW_INDEX, complete_until=moment, is_complete=is_complete), now=moment)

    def plans(self, query: ListQuery) -> list[str]:
        """How SQLite answers each statement of a page: the steps of its plan, a line each."""
        walk = self.lists.walk(query)
        sql = ListSql(SQLITE, query.term, query.order, query.scope, query.after)
        statements: list[Statement] = [sql.page(walk, query.size, 0), sql.end_of_window(walk), sql.probe(walk)]
        found = []
        for statement in statements:
            steps = self.reader.fetch(f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters)
            found.append("\n".join(str(step[-1]) for step in steps))
        return found

    def close(self) -> None:
        """Close the files."""
        self.reader.close()
        self.writer.close()


def rare_rows(count: int) -> list[OperationRow]:
    """Rows of two tenants, of which few failed or have a label, so that plans are those of a large index."""
    return [
        row(
            number,
            tenant=("", "acme")[number % 2],
            caller=("ann", "bob", "")[number % 3],
            status="Failed" if number % 50 == 0 else "Succeeded",
            code="Timeout" if number % 50 == 0 else None,
            message="disk full" if number % 50 == 0 else None,
            finished_at=number + 1,
            labels='{"team":"press"}' if number % 10 == 0 else None,
            resource_id=str(number),
        )
        for number in range(count)
    ]
