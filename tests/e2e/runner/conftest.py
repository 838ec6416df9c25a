"""A broker of each test's own, and a stage that records and reads operations on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked, opened
from tests.support.runner.stage import RunnerStage


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker without streams."""
    with Broker() as broker:
        yield broker


@pytest.fixture
async def stage(broker: Broker) -> AsyncIterator[RunnerStage]:
    """A stage on the broker, which is provisioned. A test may leave the broker paused."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
        yield RunnerStage(link, await opened(link))
        if broker.is_paused:
            broker.resume()
