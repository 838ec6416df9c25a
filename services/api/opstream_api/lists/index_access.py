"""Opens the index for lists. It loads the client of a database, so a process without an index leaves it out."""

from __future__ import annotations

import time
from typing import Final

from opstream_index.drivers import open_reader
from opstream_index.lists.cursor import CursorSigner
from opstream_index.lists.reader import ListReader
from opstream_index.lists.sql import POSTGRESQL, SQLITE
from opstream_index.location import IndexLocation

from .operation_list import OperationList

READERS: Final = 2
"""Queries that one process has at the index at a time."""


def open_lists(location: IndexLocation, key: bytes) -> OperationList:
    """Return what answers lists from an index. It connects with the first list.

    Args:
        location: of the index.
        key: signs cursors; empty for a service that asks for no credentials.

    Raises:
        IndexUnusable: what its database needs is not installed.
    """
    dialect = SQLITE if location.path else POSTGRESQL
    readers = [ListReader(open_reader(location), dialect) for _ in range(READERS)]
    return OperationList(readers, signer=CursorSigner(key), now=_now)


def _now() -> int:
    return time.time_ns() // 1000
