"""A stream of events while the broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_api.operations import history, watch
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Succeeded
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

FOLLOWING = ": still following"
WAITING = ": the journal does not answer, waiting"


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def test_it_says_that_it_waits(
    api: Api, broker: Broker, link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of a quiet operation gets a comment when the journal does not respond, and again when it does."""
    monkeypatch.setattr(history, "PING_INTERVAL", 0.1)
    monkeypatch.setattr(watch, "REFRESH_INTERVAL", 0.1)
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await story.append(started())
    headers = {"Accept": "text/event-stream"}
    async with api.client.stream("GET", f"/status/{story.operation.id}/events", headers=headers) as answer:
        lines = answer.aiter_lines()
        await until(lines, FOLLOWING)
        broker.stop()
        await until(lines, WAITING)
        broker.start()
        assert await link.wait_connected(10)
        await until(lines, FOLLOWING)
        await story.append(Succeeded(result=msgspec.Raw(b"{}")))
        await until(lines, "event: succeeded")


async def until(lines: AsyncIterator[str], wanted: str) -> None:
    """Read up to a line."""
    read = []
    try:
        async with asyncio.timeout(10):
            async for line in lines:
                read.append(line)
                if line == wanted:
                    return
    except TimeoutError:
        pass
    raise AssertionError(f"no {wanted!r} came, but {set(read)}")
