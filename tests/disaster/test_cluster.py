"""Short forms of the disasters of a cluster. They are in one file, so that no two clusters run beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disaster.cluster import Freeze, Isolation, StreamLeaderKill, WipedStore
from tests.disaster.damage import ReplicaCut, ReplicaFlip
from tests.disaster.driver import play_round
from tests.disaster.scenario import Several
from tests.disaster.stage import SHORT

pytestmark = pytest.mark.e2e

SEED = 20261129


async def test_servers_that_come_and_go(tmp_path: Path) -> None:
    """A server of three is killed, frozen and isolated under load: nothing is lost, doubled or goes backwards."""
    result = await play_round(Several([StreamLeaderKill(), Freeze(), Isolation()]), tmp_path, seed=SEED, size=SHORT)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert result.accepted > 50


@pytest.mark.long
async def test_disks_of_one_server(tmp_path: Path) -> None:
    """One of three copies is damaged or wiped under load: nothing is lost, doubled or goes backwards, and a server that
    was wiped leads with all that the others have."""
    result = await play_round(Several([WipedStore(), ReplicaFlip(), ReplicaCut()]), tmp_path, seed=SEED, size=SHORT)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert result.accepted > 50
