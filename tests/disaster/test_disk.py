"""Short form of the disaster of a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disaster.disk import FullDisk
from tests.disaster.driver import play_round
from tests.disaster.stage import SHORT

pytestmark = pytest.mark.e2e

SEED = 20261129


async def test_a_full_disk(tmp_path: Path) -> None:
    """The broker's disk is full: `/readyz` names it. Once it is free and the broker restarted, everything goes on."""
    result = await play_round(FullDisk(), tmp_path, seed=SEED, size=SHORT)
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert max(result.aways) > 0
