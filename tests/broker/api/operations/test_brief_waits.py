"""Polls of operations that usually end within moments, on a real broker: the tests append the events themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from opstream_api.operations import brief_waits
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Succeeded
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

SUCCEEDED = Succeeded(result=msgspec.Raw(b"{}"))
USUAL = 2.0
"""Seconds that the operations of these tests are said to take: long enough for a slow machine."""


@pytest.fixture
async def api(broker: Broker, link: Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    monkeypatch.setattr(brief_waits, "MOST", 4 * USUAL)
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def submitted(api: Api, journal: Journal) -> OperationStory:
    """An operation that was just submitted."""
    return await OperationStory.of(journal, (await api.submit()).json()["id"])


async def learn(api: Api, journal: Journal, seconds: float) -> None:
    """Let an operation end, so many seconds after its submit, and the service hear of it."""
    story = await submitted(api, journal)
    known = api.brief_waits._usual_times
    before = dict(known._seconds)
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr(api.brief_waits, "_now", lambda: story.operation.created_at + timedelta(seconds=seconds))
        await story.append(started(), SUCCEEDED)
        await eventually(lambda: known._seconds != before)


async def poll(api: Api, story: OperationStory) -> tuple[asyncio.Task[httpx.Response], float]:
    """Begin to read a status; return once the request waits, or is answered, with the time of its start."""
    began = time.monotonic()
    polling = asyncio.create_task(api.status(story.operation.id))
    await eventually(lambda: len(api.watchers) or polling.done())
    return polling, began


async def test_a_poll_is_answered_at_the_end(api: Api, journal: Journal) -> None:
    """Once it is known that the action takes moments, one poll is enough."""
    await learn(api, journal, USUAL)
    story = await submitted(api, journal)
    polling, began = await poll(api, story)
    assert len(api.watchers) == 1
    await story.append(started(), SUCCEEDED)
    answer = await polling
    assert time.monotonic() - began < USUAL
    assert answer.json()["status"] == "Succeeded"
    assert "Preference-Applied" not in answer.headers
    await eventually(lambda: not len(api.watchers))


async def test_without_an_end_it_is_answered_with_what_the_journal_has(
    api: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is brief, and what is answered is not older than the journal at the time of the request."""
    await learn(api, journal, 0.1)
    monkeypatch.setattr(brief_waits, "MOST", 0.2)
    story = await submitted(api, journal)
    await story.append(started())
    began = time.monotonic()
    answer = await api.status(story.operation.id)
    assert answer.json()["status"] == "Running"
    assert answer.headers["Retry-After"] == "1"
    assert time.monotonic() - began < 2.0


async def test_other_polls_do_not_wait(api: Api, journal: Journal) -> None:
    """Not before an end of the action is known, not if it takes longer, and not with `Prefer: wait=0`."""
    assert (await (await poll(api, await submitted(api, journal)))[0]).json()["status"] == "NotStarted"
    await learn(api, journal, USUAL)
    story = await submitted(api, journal)
    assert (await api.wait(story.operation.id, 0)).json()["status"] == "NotStarted"
    for _ in range(8):
        await learn(api, journal, 1000.0)
    began = time.monotonic()
    assert (await api.status((await submitted(api, journal)).operation.id)).json()["status"] == "NotStarted"
    assert time.monotonic() - began < USUAL


async def test_a_service_that_stops_answers(broker: Broker, link: Connection, api: Api, journal: Journal) -> None:
    """When the service stops, a poll that waits gets the current status."""
    await learn(api, journal, USUAL)
    story = await submitted(api, journal)
    polling, began = await poll(api, story)
    api.stop()
    assert (await polling).json()["status"] == "NotStarted"
    assert time.monotonic() - began < USUAL


async def test_a_follower_that_is_away_delays_nothing(broker: Broker, api: Api, journal: Journal) -> None:
    """What was learned is forgotten when the journal can't be followed: a wait would only cost time."""
    await learn(api, journal, USUAL)
    story = await submitted(api, journal)
    broker.kill()
    broker.start()
    began = time.monotonic()

    async def is_answered() -> bool:
        return (await api.wait(story.operation.id, 0)).status_code == 200

    await eventually(is_answered, within=15)
    began = time.monotonic()
    assert (await api.status(story.operation.id)).json()["status"] == "NotStarted"
    assert time.monotonic() - began < USUAL
    assert datetime.now(UTC) - story.operation.created_at < timedelta(seconds=4 * USUAL)
