"""An index of SQLite in memory, for tests that draw many."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from opstream_index.operation_row import OperationRow
from opstream_index.sqlite_rows import write_rows
from opstream_index.store import Coverage
from opstream_index.tables import SQLITE_TABLES


class MemoryIndex:
    """It answers queries as a reader of a file does."""

    def __init__(self, found: Sequence[OperationRow]) -> None:
        self.database = sqlite3.connect(":memory:")
        for statement in SQLITE_TABLES:
            self.database.execute(statement)
        write_rows(self.database, found)

    def fetch(self, statement: str, parameters: Any = (), *, timeout: float = 5.0) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.database.execute(statement, tuple(parameters)).fetchall()

    def coverage(self) -> Coverage:
        """It is complete."""
        return Coverage(is_complete=True, complete_until=0)

    def close(self) -> None:
        """Forget it."""
        self.database.close()
