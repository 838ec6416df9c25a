"""Tables of the parts about reading."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.harness.table import KIB, MIB, Rows, figure_table
from bench.reading.benchmark import ReadingFigures
from bench.reading.status_reads import StatusReadFigures
from bench.reading.streams import StreamFigures
from bench.reading.validation import InputFigures
from bench.reading.waits import WaitFigures

_SAFETY: Final = 5.0
"""Seconds after which the API reads an awaited operation again (docs/architecture.md)."""

_GETS: Final[Rows[StatusReadFigures]] = (
    ("answers/s", lambda f: f.rate, "{:,.0f}"),
    ("p50 ms", lambda f: f.together.p50, "{:.2f}"),
    ("p99 ms", lambda f: f.together.p99, "{:.2f}"),
    ("alone: p50 ms", lambda f: f.alone.p50, "{:.2f}"),
    ("alone: p99 ms", lambda f: f.alone.p99, "{:.2f}"),
    ("processor time, api, us an answer", lambda f: f.cpu["api"], "{:.0f}"),
    ("processor time, broker, us an answer", lambda f: f.cpu["broker"], "{:.0f}"),
    ("processor time, load generator, us an answer", lambda f: f.cpu["load"], "{:.0f}"),
    ("load generator, share of a core", lambda f: f.load_share, "{:.2f}"),
)
_WAITS: Final[Rows[WaitFigures]] = (
    ("answered after the end, p50 ms", lambda f: f.late.p50, "{:.1f}"),
    ("answered after the end, p99 ms", lambda f: f.late.p99, "{:.1f}"),
    ("answered after the end, max ms", lambda f: f.late.max, "{:.1f}"),
    ("from the first end to the last answer, s", lambda f: f.span, "{:.2f}"),
    ("api memory before, MiB", lambda f: f.rss["before"] / MIB, "{:.1f}"),
    ("api memory with all who wait, MiB", lambda f: f.rss["waiting"] / MIB, "{:.1f}"),
    ("api memory after, MiB", lambda f: f.rss["after"] / MIB, "{:.1f}"),
    ("KiB for each who waits", lambda f: (f.rss["waiting"] - f.rss["before"]) / f.clients / KIB, "{:.1f}"),
    ("  of which its connection", lambda f: (f.rss["idle"] - f.rss["before"]) / f.clients / KIB, "{:.1f}"),
    ("quiet: operations read", lambda f: f.read, "{:,}"),
    ("quiet: broker requests an operation in 5 s (aim: about 1)", lambda f: _asked(f, f.operations), "{:.2f}"),
    ("quiet: broker requests a client in 5 s", lambda f: _asked(f, f.clients), "{:.3f}"),
    ("quiet: api, share of a core", lambda f: f.quiet_cpu / f.quiet, "{:.3f}"),
    ("processor time, api, us an answer", lambda f: f.end_cpu["api"] * 1e6 / f.clients, "{:.0f}"),
    ("load generator, share of a core", lambda f: f.end_cpu["load"] / f.span, "{:.2f}"),
)
_STREAMS: Final[Rows[StreamFigures]] = (
    ("readers", lambda f: f.readers, "{:,}"),
    ("clients who read nothing", lambda f: f.idlers, "{:,}"),
    ("events", lambda f: f.events, "{:,}"),
    ("bytes an event", lambda f: f.size, "{:,.0f}"),
    ("appended in, p50 ms", lambda f: f.append.p50, "{:.2f}"),
    ("received after its time, p50 ms", lambda f: f.late.p50, "{:.1f}"),
    ("received after its time, p99 ms", lambda f: f.late.p99, "{:.1f}"),
    ("received after its time, max ms", lambda f: f.late.max, "{:.1f}"),
    ("events received/s, all readers", lambda f: f.rate, "{:,.0f}"),
    ("processor time, api, us an event and reader", lambda f: f.cpu["api"], "{:.1f}"),
    ("processor time, load generator, the same", lambda f: f.cpu["load"], "{:.1f}"),
    ("api, share of a core", lambda f: f.api_share, "{:.2f}"),
    ("load generator, share of a core", lambda f: f.load_share, "{:.2f}"),
    ("api memory before, MiB", lambda f: f.rss["before"] / MIB, "{:.1f}"),
    ("api memory, all connected, MiB", lambda f: f.rss["connected"] / MIB, "{:.1f}"),
    ("api memory, peak, MiB", lambda f: f.rss["peak"] / MIB, "{:.1f}"),
    (
        "KiB for each connected client",
        lambda f: (f.rss["connected"] - f.rss["before"]) / (f.readers + f.idlers) / KIB,
        "{:.1f}",
    ),
)
_STEPS: Final = ("encoding and nesting", "decode", "schema", "request hash", "event, encoded and decoded", "all")


def reading_lines(found: ReadingFigures) -> Iterator[str]:
    """The tables of all parts that were measured."""
    if found.gets:
        yield "\nGET /status/{id} on keep-alive connections, by what the operation is"
        yield from figure_table([one.name for one in found.gets], _GETS, found.gets)
    if found.waits:
        yield f"\n{found.waits[0].clients:,} clients with Prefer: wait, by operations"
        yield from figure_table([f"{one.operations:,}" for one in found.waits], _WAITS, found.waits)
    if found.streams:
        yield "\nServer-Sent Events of one operation: paced, at once, and with clients who read nothing"
        yield from figure_table(["paced", "at once", "idlers"], _STREAMS, found.streams)
    if found.inputs:
        yield "\nan input by its bytes: each step of its submit, and the whole POST alone"
        steps = [(f"{name}, us", partial(_step, name=name), "{:,.1f}") for name in _STEPS]
        rows: Rows[InputFigures] = (
            ("files", lambda f: f.files, "{:,}"),
            *steps,
            ("POST, p50 ms", lambda f: f.post.p50, "{:.2f}"),
            ("POST, p99 ms", lambda f: f.post.p99, "{:.2f}"),
        )
        yield from figure_table([f"{one.size:,}" for one in found.inputs], rows, found.inputs)


def _step(found: InputFigures, *, name: str) -> float:
    return found.steps[name]


def _asked(found: WaitFigures, count: int) -> float:
    return found.requests / count / (found.quiet / _SAFETY)
