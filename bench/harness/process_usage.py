"""Processor time of a process, from its clock, and its memory, from /proc."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec


class BenchFailed(Exception):
    """A measured process did not start, ended, or failed; the message says which."""


class Usage(msgspec.Struct, frozen=True):
    """Processor time and memory of one process."""

    cpu: float
    """Seconds, user and system."""
    rss: int
    """Bytes."""


def process_usage(pid: int) -> Usage:
    """Read the usage of a process.

    Raises:
        BenchFailed: it does not exist, or there is no /proc.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        # The clock that clock_getcpuclockid(3) names: it counts nanoseconds, where /proc has hundredths of seconds.
        cpu = time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise BenchFailed(f"process {pid} can't be read: {error}") from error
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return Usage(cpu=cpu, rss=int(rss) * 1024)


def peak_memory(pid: int) -> int:
    """Read the most bytes of memory that a process has had so far.

    Raises:
        BenchFailed: it does not exist, or there is no /proc.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise BenchFailed(f"process {pid} can't be read: {error}") from error
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024
