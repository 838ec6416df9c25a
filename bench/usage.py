"""What a process has used so far, from /proc. Called for the services that are measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class BenchFailed(Exception):
    """Something did not start, or ended, or answered wrongly; the message is for a person."""


class Usage(msgspec.Struct, frozen=True):
    """What one process has used so far."""

    cpu: float
    """Seconds, user and system."""
    rss: int
    """Bytes."""


def process_usage(pid: int) -> Usage:
    """Look at a process.

    Raises:
        BenchFailed: there is none, or no /proc.
    """
    try:
        # Fields 14 and 15, counted after the name, which may hold anything but ends with the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise BenchFailed(f"process {pid} can't be looked at in /proc: {error}") from error
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return Usage(cpu=(int(fields[11]) + int(fields[12])) / _TICKS, rss=int(rss) * 1024)
