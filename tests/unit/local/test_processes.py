"""A child of the supervisor: its end counts, whatever still holds its output."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from opstream.local.processes import ChildProcess
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit

GUARD = 20.0
"""Seconds after which a test gives up."""


async def run(script: str, lines: list[str]) -> ChildProcess:
    """Run a shell script to its end."""
    child = await ChildProcess.start("one", ["sh", "-c", script], environment=dict(os.environ), on_line=lines.append)
    async with asyncio.timeout(GUARD):
        await asyncio.wait([child.ended])
    return child


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_all_output_is_read() -> None:
    """Also a last line without its end, and what the child's own children print just before they end."""
    lines: list[str] = []
    child = await run("echo out; echo error >&2; (echo late) & printf rest; exit 4", lines)
    assert child.ended.result() == 4
    assert sorted(lines) == sorted(child.tail)
    assert "".join(lines).replace("late", "") == "outerrorrest"


async def test_its_end_is_not_that_of_what_it_left() -> None:
    """The child has ended although another process holds its output, which is named and lives on."""
    lines: list[str] = []
    child = await run("sleep 300 & echo $!; exit 3", lines)
    (pid,) = child.tail
    os.kill(int(pid), signal.SIGKILL)  # which would fail if it did not run
    assert child.ended.result() == 3
    assert lines == [pid, f"opstream: the one has ended, and what it started still runs: sleep 300 (pid {pid})"]


async def test_no_descriptor_is_left() -> None:
    """Neither a child that ends nor one that can't be started keeps a descriptor of this process."""
    await run("true", [])  # what asyncio makes once
    before = open_descriptors()
    await run("echo one", [])
    with pytest.raises(FileNotFoundError):
        await ChildProcess.start("none", ["/no/such/program"], environment={}, on_line=lambda _: None)
    await eventually(lambda: open_descriptors() == before)
