"""A stage that records and reads operations on a broker of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection
from tests.support.broker.server import Broker
from tests.support.journal.journals import opened
from tests.support.runner.stage import RunnerStage


@pytest.fixture
async def stage(broker: Broker, link: Connection) -> AsyncIterator[RunnerStage]:
    """A stage on the broker. A test may leave the broker paused."""
    yield RunnerStage(link, await opened(link))
    if broker.is_paused:
        broker.resume()
