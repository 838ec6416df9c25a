"""Processor time and memory of a process with all its descendants, from /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


class ProcessTimes(NamedTuple):
    """What `/proc/{pid}/stat` says of one process."""

    parent: int
    cpu: float
    """Seconds, of itself and of its children that have ended."""


def parse_stat(text: str) -> ProcessTimes:
    """Parse `/proc/{pid}/stat`; the name, in brackets, may hold any character."""
    fields = text.rpartition(")")[2].split()
    return ProcessTimes(int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)


def parse_pss(text: str) -> int:
    """The bytes of the line `Pss:` of `/proc/{pid}/smaps_rollup`; 0 if there is none."""
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def all_times() -> dict[int, ProcessTimes]:
    """Of each process of the machine, by pid."""
    found = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit() and (text := _read(folder / "stat")):
            found[int(folder.name)] = parse_stat(text)
    return found


def tree(times: dict[int, ProcessTimes], root: int) -> list[int]:
    """The pids of a process and its descendants."""
    found = [root]
    for pid in found:  # it grows
        found += [child for child, one in times.items() if one.parent == pid]
    return [pid for pid in found if pid in times]


def label_of(command: Sequence[str]) -> str:
    """A short name for a process: the command of `python -m opstream`, otherwise the program or the script."""
    words = [*command]
    if "-m" in words[:-2]:
        module, first = words[words.index("-m") + 1 :][:2]
        return module if first.startswith("-") else first
    program = Path(words[0]).name if words else ""
    if program.startswith("python") and len(words) > 1 and not words[1].startswith("-"):
        return Path(words[1]).name
    return program or "ended"


def label(pid: int) -> str:
    """The short name of a running process."""
    return label_of([word for word in _read(_PROC / str(pid) / "cmdline").split("\0") if word])


def pss(pids: list[int]) -> int:
    """Bytes of proportional memory of processes; those that have ended have none."""
    return sum(parse_pss(_read(_PROC / str(pid) / "smaps_rollup")) for pid in pids)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
