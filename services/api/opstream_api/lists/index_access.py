"""Opens the index for lists and counts. It loads the client of a database: a process without an index leaves it out."""

from __future__ import annotations

import time
from typing import Final

from opstream_index.counts.reader import CountReader
from opstream_index.drivers import open_reader
from opstream_index.lists.cursor import CursorSigner
from opstream_index.lists.reader import ListReader
from opstream_index.lists.sql import POSTGRESQL, SQLITE
from opstream_index.location import IndexLocation

from .operation_counts import OperationCounts
from .operation_list import OperationList

READERS: Final = 2
"""Lists that one process has answered at a time; and one count besides."""


def open_index(location: IndexLocation, key: bytes) -> tuple[OperationList, OperationCounts]:
    """Return what answers lists and counts from an index. It connects with the first of them.

    Args:
        location: of the index.
        key: signs cursors; empty for a service that asks for no credentials.

    Raises:
        IndexUnusable: what its database needs is not installed.
    """
    dialect = SQLITE if location.path else POSTGRESQL
    readers = [ListReader(open_reader(location), dialect) for _ in range(READERS)]
    counts = OperationCounts(CountReader(open_reader(location), dialect), now=_now)
    return OperationList(readers, signer=CursorSigner(key), now=_now), counts


def _now() -> int:
    return time.time_ns() // 1000
