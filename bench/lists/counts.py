"""Counts, measured: `python -m bench.lists.counts`, in a temporary or a kept index (see `bench.lists.pages`)."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.lists.pages import fill
from bench.lists.rows import END
from opstream_index.counts.examples import COUNT_EXAMPLES
from opstream_index.counts.group_field import parse_group_field
from opstream_index.counts.reader import CountQuery, CountReader
from opstream_index.filters.checks import parse_filter
from opstream_index.lists.sql import SQLITE
from opstream_index.operation_row import instant_of
from opstream_index.sqlite_store import SqliteReader


def main() -> int:
    """Fill an index, and print a table of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5, help="counts of each example")
    parser.add_argument("--index", type=Path, help="a file to keep; one that is there is not filled again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opstream-counts-") as folder:
        path = options.index or Path(folder) / "index.db"
        if not path.exists():
            fill(path, options.rows)
        measure(path, options.repeat)
    return 0


def measure(path: Path, repeat: int) -> None:
    """Print how long each example takes. A `+` is a count that ended early: its number is that of the newest."""
    counts = CountReader(SqliteReader(str(path)), SQLITE)
    print("| p50 ms | most ms | processor ms | count | groups | filter | by |\n|---|---|---|---|---|---|---|")
    for example in COUNT_EXAMPLES:
        term = parse_filter(example.filter) if example.filter else None
        query = CountQuery(term=term, group_field=parse_group_field(example.by) if example.by else None)
        times, used = [], []
        for _ in range(repeat):
            begin, begin_used = time.perf_counter(), time.thread_time()
            count = counts.count(query, instant_of(END))
            times.append((time.perf_counter() - begin) * 1000)
            used.append((time.thread_time() - begin_used) * 1000)
        number = f"{count.whole.number:,}{'' if count.counted_from is None else '+'}"
        figures = f"{statistics.median(times):.1f} | {max(times):.1f} | {statistics.median(used):.1f}"
        print(f"| {figures} | {number} | {len(count.groups)} | `{example.filter}` | `{example.by}` |")


if __name__ == "__main__":
    sys.exit(main())
