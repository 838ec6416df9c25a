"""Short form of the disaster of a damaged journal without replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disaster.damage import FlippedBytes
from tests.disaster.driver import play_round
from tests.disaster.stage import SHORT

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SEED = 20261129


async def test_the_only_copy(tmp_path: Path) -> None:
    """Bytes of the only copy flip: opstream says that events are gone, keeps and exports what the view has, and an
    operator restores the backup."""
    result = await play_round(FlippedBytes(), tmp_path, seed=SEED, size=SHORT)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert result.gone > 0
