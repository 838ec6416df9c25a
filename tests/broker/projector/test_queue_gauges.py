"""The gauges of the queues on a real broker: each is moved by what it is for, and back by its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from opstream_journal import NEW_OPERATION, Connection, Journal, announce_action
from opstream_journal.metrics.page import REFRESH_INTERVAL, Metrics
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import cancel_timers, schedule_deadline, schedule_wake_up, send_deadline
from opstream_projector.queues.queue_gauges import QueueGauges
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec, Policy
from opstream_schemas.names import Kind
from opstream_schemas.operation.resource_lock import Claim
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, first
from tests.support.projector.projection import projector, running, settled
from tests.support.schemas.histories import request
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

LATER = timedelta(hours=1)


@pytest.fixture
async def gauges(link: Connection) -> AsyncIterator[QueueGauges]:
    """The gauges; the catalog has one action, with a consumer."""
    policy = Policy(exclusive="resource", max_concurrency=2, rate="1/h")
    spec = ActionSpec(
        resource=KIND.resource,
        action=KIND.action,
        summary="",
        action_version=1,
        input_schema={},
        result_schema={},
        policy=policy,
    )
    await announce_action(link, spec)
    await ensure_runner_consumer(link, spec)
    gauges = QueueGauges(link)
    await gauges.start()
    async with running(gauges):
        yield gauges


async def shown(gauges: QueueGauges) -> dict[str, dict[tuple[str, ...], float]]:
    """All numbers now, by the names and labels of their series."""
    await gauges.read()
    return {one.name: {sample.labels: sample.value for sample in one.samples()} for one in gauges.instruments}


async def waits(gauges: QueueGauges, kind: Kind = KIND) -> dict[str, float]:
    """How many operations of an action wait, by reason; those for which none waits are left out."""
    found = (await shown(gauges))["opstream_waiting"]
    return {reason: number for (label, reason), number in found.items() if label == str(kind) and number}


async def test_nothing_waits(gauges: QueueGauges) -> None:
    """An idle system shows zeros, one for each reason that the action's options allow."""
    found = await shown(gauges)
    assert {reason for _, reason in found["opstream_waiting"]} == {
        "Runner",
        "FreeRunner",
        "Concurrency",
        "Resource",
        "Rate",
        "Retry",
    }
    assert {number for series in found.values() for number in series.values()} == {0}


async def test_requests_without_a_runner(gauges: QueueGauges, journal: Journal) -> None:
    """What no runner takes waits for one, since the first request; the view is behind by as many events."""
    for number in range(3):
        await begin(journal, f"op-{number}")
    await eventually(lambda: _counts(gauges, 3))  # the broker tells a consumer of a message a moment after it is stored
    found = await shown(gauges)
    assert found["opstream_projector_lag_events"][()] == 3
    oldest = found["opstream_oldest_waiting_seconds"][str(KIND), "Runner"]
    assert 0 < oldest < 60
    assert oldest == pytest.approx(found["opstream_projector_lag_seconds"][()], abs=1.0)


async def _counts(gauges: QueueGauges, number: int) -> bool:
    return await waits(gauges) == {"Runner": number}


async def test_the_projector_catches_up(gauges: QueueGauges, link: Connection, journal: Journal) -> None:
    """Once the events are in the view, nothing lags."""
    await begin(journal, "op-1")
    assert (await shown(gauges))["opstream_projector_lag_events"][()] == 1
    async with running(projector(link, journal)):
        await settled(link)
    found = await shown(gauges)
    assert (found["opstream_projector_lag_events"][()], found["opstream_projector_lag_seconds"][()]) == (0, 0)


async def test_as_many_attempts_as_the_action_allows(gauges: QueueGauges, link: Connection, journal: Journal) -> None:
    """Beyond `max_concurrency`, what is not delivered waits for an attempt to end."""
    for number in range(5):
        await begin(journal, f"op-{number}")
    puller = await link.nc.jetstream().pull_subscribe_bind(subjects.runner_consumer(KIND), subjects.OPERATIONS_STREAM)
    await puller.fetch(1)
    assert await waits(gauges) == {"FreeRunner": 4}
    await puller.fetch(1)
    assert await waits(gauges) == {"Concurrency": 3}


async def test_timers(gauges: QueueGauges, link: Connection) -> None:
    """Wake-ups wait for their reason until they are cancelled; a deadline that has fired is overdue until a projector
    handles it."""
    at = datetime.now(UTC) + LATER
    for number in range(600):
        await schedule_wake_up(link, KIND, f"op-{number}", "retry", at=at, armed_by=1)
    await schedule_wake_up(link, KIND, "op-1", "rate-123", at=at, armed_by=1)
    await schedule_deadline(link, KIND, "op-1", at)
    assert await waits(gauges) == {"Retry": 600, "Rate": 1}
    await cancel_timers(link, "op-1")
    assert await waits(gauges) == {"Retry": 599}
    assert (await shown(gauges))["opstream_timers_overdue"][()] == 0
    await send_deadline(link, KIND, "op-1")

    async def is_overdue() -> bool:
        return (await shown(gauges))["opstream_timers_overdue"][()] == 1

    await eventually(is_overdue)


async def test_a_queue_for_a_resource(gauges: QueueGauges, link: Connection, journal: Journal) -> None:
    """An operation that waits for a resource is counted; its owner is not."""
    locks = ResourceLocks(link, journal)
    await locks.start()
    lock = subjects.lock_key("action.book.upload-start", "42")
    operations: list[Any] = []
    for number in range(3):
        operation = await begin(journal, f"op-{number}")
        operations.append(msgspec.structs.replace(operation, hold=lock))
    claims = [Claim(operation_id=one.id, sequence=one.stream_sequence, kind=str(KIND)) for one in operations]
    await locks.acquire(lock, claims[0])
    for operation, claim in zip(operations[1:], claims[1:], strict=True):
        await locks.enqueue(lock, operation, claim, is_watchful=False)
    assert (await waits(gauges))["Resource"] == 2


async def test_a_flood_of_invented_actions(gauges: QueueGauges, link: Connection, journal: Journal) -> None:
    """Operations and timers of actions that no runner has announced make one series, whatever they are called."""
    for number in range(50):
        kind = Kind("invented", f"a-{number}")
        data = request(resource=kind.resource, action=kind.action)
        await journal.append(kind, first(f"op-{number}", data=data), NEW_OPERATION, budget=10)
        await schedule_wake_up(link, kind, f"op-{number}", "retry", at=datetime.now(UTC) + LATER, armed_by=1)
    found = await shown(gauges)
    assert {label for label, _ in found["opstream_waiting"]} == {str(KIND), "other"}
    assert found["opstream_waiting"]["other", "Retry"] == 50


async def test_a_broker_that_answers_nothing_for_seconds(gauges: QueueGauges, broker: Broker, journal: Journal) -> None:
    """As in an election, a read fails. The page goes on to show what was read before, and is right again five seconds
    later, so that an alert that waits for its time does not begin again."""
    ahead = 0.0
    metrics = Metrics(clock=lambda: time.monotonic() + ahead)
    metrics.refresh_with(gauges.read, *gauges.instruments)
    waiting = f'\nopstream_waiting{{action="{KIND}",reason="Runner"}} '

    async def shows(number: int) -> bool:
        return f"{waiting}{number}\n" in (await metrics.page(""))[1].decode()

    await begin(journal, "op-1")
    await eventually(partial(shows, 1))
    await begin(journal, "op-2")
    ahead += REFRESH_INTERVAL
    broker.pause()
    try:
        assert await shows(1)
        assert await shows(1)  # this scrape waits for the end of the read, if it has not ended
    finally:
        broker.resume()
    ahead += REFRESH_INTERVAL
    await eventually(partial(shows, 2))
    await metrics.stop()


async def test_an_action_that_was_just_announced(gauges: QueueGauges, link: Connection) -> None:
    """Before its first operation counts, the catalog is read; a flood of invented actions reads it no more often."""
    kind = Kind("book", "late")
    refresh, reads = gauges._catalog.refresh, 0

    async def counted() -> None:
        nonlocal reads
        reads += 1
        await refresh()

    gauges._catalog.refresh = counted  # type: ignore[method-assign]
    spec = msgspec.structs.replace(gauges._catalog.specs[KIND], action="late")
    await announce_action(link, spec)
    await asyncio.gather(*(gauges.learn(kind) for _ in range(64)))
    assert gauges.labels.label(kind) == "book:late"
    before = reads
    for number in range(1_000):
        await gauges.learn(Kind("invented", f"a-{number}"))
    assert reads <= before + 2
