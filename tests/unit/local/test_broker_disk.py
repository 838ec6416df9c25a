"""The disk of the broker of `opstream up`: which lines say that it is full, and how often the broker is restarted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from opstream.local.broker_disk import MAX_RESTARTS, BrokerDisk

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("line", "is_full"),
    [
        ("[1] [ERR] JetStream failed to store a msg: write /data/1.blk: no space left on device", True),
        ("[1] [ERR] write /data/1.blk: disk quota exceeded", True),
        ("[1] [INF] Server is ready", False),
        ("[1] [ERR] write /data/1.blk: input/output error", False),
    ],
)
async def test_lines(tmp_path: Path, line: str, is_full: bool) -> None:
    """Only a line about a lack of room says that the disk is full."""
    disk = BrokerDisk(tmp_path, lambda: 0.0)
    disk.read_line(line)
    waiting = asyncio.create_task(disk.wait_full())
    await asyncio.sleep(0)
    assert waiting.done() is is_full
    waiting.cancel()


async def test_not_endlessly(tmp_path: Path) -> None:
    """After some restarts within an hour there are no more, until the first one is an hour ago."""
    now = 0.0
    disk = BrokerDisk(tmp_path, lambda: now)
    for _ in range(MAX_RESTARTS):
        assert disk.may_restart()
        now += 60
    assert not disk.may_restart()
    now = 3_601.0
    assert disk.may_restart()
    assert not disk.may_restart()


@pytest.mark.parametrize("folder", ["/proc/x", "missing/folder"])
def test_a_folder_that_is_not_there(tmp_path: Path, folder: str) -> None:
    """A folder without a disk to ask has room: what ended a process was something else."""
    disk = BrokerDisk(tmp_path / folder, lambda: 0.0)
    assert disk.has_room()
    assert not disk.explains(["opstream: error: can't write: no space left on device"])
    assert not disk.is_full
