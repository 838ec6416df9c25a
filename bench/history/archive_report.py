"""The table of what the journal and the archive take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bench.harness.table import MIB, figure_table
from bench.history.archive import EVENTS, LAYOUTS, ArchiveFigures, StreamLayout

_GIB: Final = 1024 * MIB
_MILLION: Final = 1_000_000


def archive_lines(found: ArchiveFigures) -> Iterator[str]:
    """A column for each layout; figures that grow with the operations are scaled to a million."""
    factor = _MILLION / found.operations
    yield (
        f"\na million operations, {EVENTS} events each, in the journal and in the archive"
        + (f"; extrapolated from {found.operations:,}" if found.operations != _MILLION else "")
    )
    yield f"  a broker without streams takes {found.empty / MIB:.1f} MiB; right after filling {found.loaded / MIB:.1f}"
    rows = (
        ("bytes before compression, GiB", lambda one: one.bytes * factor / _GIB, "{:.2f}"),
        ("bytes on the disk, GiB", lambda one: one.disk * factor / _GIB, "{:.2f}"),
        ("bytes on the disk, an event", lambda one: one.disk / found.operations / EVENTS, "{:,.0f}"),
        ("broker memory after a restart, MiB", lambda one: one.rss * factor / MIB, "{:,.1f}"),
        ("seconds until that broker takes connections", lambda one: one.start, "{:.2f}"),
        ("copied from the journal, events/s", _rate(found.operations), "{:,.0f}"),
    )
    heads = [LAYOUTS[one.name] for one in found.layouts]
    for number, head in enumerate(heads, start=1):
        yield f"  {number}: {head}"
    yield from figure_table([str(number) for number in range(1, len(heads) + 1)], rows, found.layouts)


def _rate(operations: int) -> Callable[[StreamLayout], float]:
    def rate(one: StreamLayout) -> float:
        return operations * EVENTS / one.copied if one.copied else 0.0

    return rate
