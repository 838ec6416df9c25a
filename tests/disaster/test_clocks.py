"""Short forms of the disasters of clocks; `make disaster` sets those of the other services, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disaster.clocks import FastRunner, SlowApi
from tests.disaster.driver import play_round
from tests.disaster.scenario import Several
from tests.disaster.stage import SHORT

pytestmark = pytest.mark.e2e

SEED = 20261129


async def test_clocks_that_are_an_hour_off(tmp_path: Path) -> None:
    """The runners' clock is an hour ahead, then the APIs' an hour behind: `/readyz` says so, and nothing is lost."""
    result = await play_round(Several([FastRunner(), SlowApi()]), tmp_path, seed=SEED, size=SHORT)
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert result.accepted > 50
