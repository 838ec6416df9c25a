"""A service that asks for API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection, announce_action
from opstream_schemas.names import Kind
from tests.support.access.desk import AccessDesk, serving_with_keys
from tests.support.api.service import spec
from tests.support.broker.server import Broker


@pytest.fixture
async def desk(broker: Broker, link: Connection) -> AsyncIterator[AccessDesk]:
    """The service, whose catalog has two actions."""
    await announce_action(link, spec())
    await announce_action(link, spec(Kind("shelf", "index")))
    async with serving_with_keys(broker, link) as desk:
        yield desk
