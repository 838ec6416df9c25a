"""Processor time and memory of a process, from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_TICKS: Final = os.sysconf("SC_CLK_TCK")


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
        # Fields 14 and 15. The name before them may hold any character, but ends with the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise BenchFailed(f"process {pid} can't be read in /proc: {error}") from error
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return Usage(cpu=(int(fields[11]) + int(fields[12])) / _TICKS, rss=int(rss) * 1024)
