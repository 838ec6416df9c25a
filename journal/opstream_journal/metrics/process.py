"""What each Prometheus client says of its process, by the names that dashboards know: processor time, memory, files.

They are read from `/proc`; where there is none, the families have no series.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .instruments import Gauges, Instrument, ReadCounts, Readings

_PROC: Final = Path("/proc/self")
_START_FIELD: Final = 19
"""Of `/proc/self/stat`, counted from the one behind the process's name: when it began, in ticks since the boot."""


def process_instruments() -> list[Instrument]:
    """Return the instruments of this process."""
    return [
        ReadCounts("process_cpu_seconds", "Processor time of this process, in seconds.", read=_cpu_seconds),
        Gauges("process_resident_memory_bytes", "Resident memory of this process.", read=_known(_resident_bytes)),
        Gauges("process_virtual_memory_bytes", "Virtual memory of this process.", read=_known(_virtual_bytes)),
        Gauges("process_open_fds", "File descriptors that this process has open.", read=_known(_open_files)),
        Gauges("process_max_fds", "File descriptors that this process may have open.", read=_max_files),
        Gauges("process_start_time_seconds", "When this process began, in Unix seconds.", read=_known(_start_time)),
    ]


def _known(read: Callable[[], float]) -> Callable[[], Readings]:
    """Return a read that has no series where the system does not say."""

    def read_if_known() -> Readings:
        try:
            return [((), read())]
        except (OSError, ValueError, IndexError):
            return []

    return read_if_known


def _cpu_seconds() -> Readings:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [((), used.ru_utime + used.ru_stime)]


def _max_files() -> Readings:
    return [((), resource.getrlimit(resource.RLIMIT_NOFILE)[0])]


def _pages(field: int) -> float:
    return int((_PROC / "statm").read_text().split()[field]) * resource.getpagesize()


def _virtual_bytes() -> float:
    return _pages(0)


def _resident_bytes() -> float:
    return _pages(1)


def _open_files() -> float:
    return sum(1 for _ in (_PROC / "fd").iterdir()) - 1  # without the one of this read


def _start_time() -> float:
    ticks = int((_PROC / "stat").read_text().rpartition(")")[2].split()[_START_FIELD])
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
