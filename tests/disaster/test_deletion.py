"""Short forms of the disasters by hand. A deleted stream of timers takes more than a minute: `make disaster` has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.disaster import deletion
from tests.disaster.driver import play_round
from tests.disaster.scenario import Several
from tests.disaster.stage import SHORT

pytestmark = pytest.mark.e2e

SEED = 20261129


async def test_all_but_the_journal(tmp_path: Path) -> None:
    """View, catalog, locks, webhooks and consumers are deleted under load, one after the other: `opstream provision`
    and `opstream rebuild` bring back all of it, and nothing is lost."""
    scenarios = [
        deletion.ViewDeletion(),
        deletion.CatalogDeletion(),
        deletion.LocksDeletion(),
        deletion.RunnerConsumersDeletion(),
        deletion.ProjectorConsumersDeletion(),
        deletion.WebhooksDeletion(),
    ]
    result = await play_round(Several(scenarios), tmp_path, seed=SEED, size=SHORT)
    assert result.breaches == []
    assert (result.lost, result.doubled, result.backwards) == (0, 0, 0)
    assert result.accepted > 50
