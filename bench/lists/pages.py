"""First pages of lists, measured: `python -m bench.lists.pages`, in a temporary or a kept index."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.lists.rows import END, operations
from opstream_index.filters.checks import parse_filter
from opstream_index.filters.order import ListOrder, parse_order
from opstream_index.lists.examples import EXAMPLES
from opstream_index.lists.reader import ListQuery, ListReader
from opstream_index.lists.sql import SQLITE
from opstream_index.operation_row import instant_of
from opstream_index.sqlite_store import SqliteReader, SqliteWriter

BATCH: Final = 1000
BOUND: Final = 20.0
"""Milliseconds for the 99th percentile of a first page."""


def main() -> int:
    """Fill an index, and print a table of percentiles. Return 1 if an example is over the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=200, help="pages of each example")
    parser.add_argument("--index", type=Path, help="a file to keep; one that is there is not filled again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opstream-lists-") as folder:
        path = options.index or Path(folder) / "index.db"
        if not path.exists():
            fill(path, options.rows)
        print(f"{options.rows:,} rows, {path.stat().st_size / options.rows:.0f} bytes a row")
        return measure(path, options.repeat)


def fill(path: Path, count: int) -> None:
    """Write so many rows, as the projector does."""
    writer = SqliteWriter(str(path))
    writer.open("bench")
    writer.begin("bench")
    begin = time.perf_counter()
    rows = operations(count)
    while batch := list(itertools.islice(rows, BATCH)):
        writer.write(batch)
    writer.close()
    print(f"{count / (time.perf_counter() - begin):,.0f} rows/s written", file=sys.stderr)


def measure(path: Path, repeat: int) -> int:
    """Print how long the first page of each example takes."""
    lists = ListReader(SqliteReader(str(path)), SQLITE)
    is_over = False
    print("| p50 ms | p99 ms | processor p99 ms | rows | filter | orderby |\n|---|---|---|---|---|---|")
    for text, order in _examples():
        query = ListQuery(term=parse_filter(text) if text else None, order=order)
        times, used = [], []
        for _ in range(repeat):
            begin, begin_used = time.perf_counter(), time.thread_time()
            page = lists.page(query, instant_of(END))
            times.append((time.perf_counter() - begin) * 1000)
            used.append((time.thread_time() - begin_used) * 1000)
        p99, used_p99 = (statistics.quantiles(one, n=100)[98] for one in (times, used))
        is_over |= p99 > BOUND
        more = "+" if page.next else ""
        figures = f"{statistics.median(times):.1f} | {p99:.1f} | {used_p99:.1f} | {len(page.rows)}{more}"
        print(f"| {figures} | `{text}` | `{order.text}` |")
    return int(is_over)


def _examples() -> Iterator[tuple[str, ListOrder]]:
    for example in EXAMPLES:
        yield example.filter, parse_order(example.orderby) if example.orderby else ListOrder()


if __name__ == "__main__":
    sys.exit(main())
