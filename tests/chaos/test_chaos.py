"""A short chaos run with a fixed seed: all that `make chaos` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import Chaos

pytestmark = pytest.mark.e2e

SEED = 20261124
SECONDS = 12.0


async def test_everything_is_disturbed(tmp_path: Path) -> None:
    """Processes are killed, stopped, cut off and crashed under load; no invariant is broken, and nothing is lost."""
    report = await Chaos(tmp_path, seed=SEED, seconds=SECONDS).run()
    print(report.text())
    assert report.breaches == []
    assert report.operations > 50
