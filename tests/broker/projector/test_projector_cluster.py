"""Two projectors on a view with three replicas, which has other error codes for conflicts, and whose leader dies."""

from __future__ import annotations

import asyncio

import pytest

from opstream_journal import NEW_OPERATION, UNTIL_STORED, Connection, ExpectedVersion, Journal, SnapshotStore
from opstream_schemas import subjects
from tests.support.broker.server import Cluster
from tests.support.journal.journals import KIND, first, folded, following, linked, opened
from tests.support.projector.projection import (
    LIFE,
    assert_is_fold,
    projector,
    quick_consumer,
    reaches,
    running,
    settled,
)
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def live(journal: Journal, operation_id: str) -> None:
    """Store a complete operation, however long the elections take."""
    operation = folded(None, await journal.append(KIND, first(operation_id), NEW_OPERATION, budget=UNTIL_STORED))
    for data in LIFE:
        event, expected = following(operation, data), ExpectedVersion(operation.stream_sequence)
        operation = folded(operation, await journal.append(KIND, event, expected, budget=UNTIL_STORED))


async def test_two_replicas_while_the_views_leader_dies(
    cluster: Cluster, cluster_link: Connection, cluster_journal: Journal
) -> None:
    """Both continue after the election; no snapshot is missing, and none is older than the journal."""
    view = SnapshotStore(cluster_link)
    names = [f"op-{number}" for number in range(60)]
    consumer = await quick_consumer(cluster_link, "quick", ack_wait=3)
    async with linked(*cluster.urls) as one, linked(*cluster.urls) as other:
        replicas = [projector(link, await opened(link), consumer=consumer, linger=0.005) for link in (one, other)]
        async with running(*replicas):
            todo = iter(names)

            async def client() -> None:
                for name in todo:
                    await live(cluster_journal, name)

            clients = asyncio.gather(*(client() for _ in range(8)))
            await eventually(lambda: reaches(view, names[9], 1))
            leader = await cluster.leader(subjects.bucket_stream(subjects.VIEW_BUCKET))
            leader.kill()
            await clients
            await settled(cluster_link, consumer, within=40)
    await assert_is_fold(view, cluster_journal, names)
