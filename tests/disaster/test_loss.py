"""Short form of the loss of everything. `make disaster SCENARIO=lost-store` has more load, `lost-cluster` three
servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disaster.driver import play_round
from tests.disaster.loss import LostStore
from tests.disaster.stage import SHORT

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SEED = 20261130


async def test_lost_store(tmp_path: Path) -> None:
    """All processes and the broker's disk are gone: a backup that was made under load brings back each operation that
    it has, each ends once, and clients work on."""
    result = await play_round(LostStore(), tmp_path, seed=SEED, size=SHORT)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert result.accepted > 20
