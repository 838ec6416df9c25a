"""Reads from a leader that is cut off from the other servers, while another one leads already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from opstream_journal import Connection, Journal, JournalError, connect
from opstream_journal.errors import NoLeader
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from tests.support.broker.provisioning import provision_started
from tests.support.broker.server import Broker
from tests.support.disaster.routed_cluster import RoutedCluster
from tests.support.journal.journals import begin
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PATIENCE: Final = 60.0


@asynccontextmanager
async def journal_at(node: Broker) -> AsyncIterator[tuple[Connection, Journal]]:
    """A journal as the API has it, over one server."""
    link = await connect([node.url], "test", connect_timeout=10)
    try:
        journal = Journal(link, max_msg_size=Sizing().max_msg_size, clock=time.monotonic, confirms_leader=True)
        await journal.start()
        yield link, journal
    finally:
        await link.close()


async def test_a_leader_that_was_cut_off_denies_nothing() -> None:
    """While it believes that it leads, a read from it fails, since it has not got what a new leader stores. It never
    says that there is no operation once there is one."""
    async with RoutedCluster.started() as cluster:
        async with journal_at(cluster.nodes[0]) as (link, _):
            await provision_started(link, Sizing(replicas=3), PATIENCE)
        # On a busy machine the first leader is soon followed by another, and this is about one that was cut off.
        await asyncio.to_thread(cluster.wait_healthy, PATIENCE)
        old = await cluster.leader(subjects.OPERATIONS_STREAM)
        others = [node for node in cluster.nodes if node is not old]
        async with journal_at(old) as (_, reader), journal_at(others[0]) as (_, writer):
            await eventually(lambda: _is_answered(reader), within=30)
            cluster.isolate(old)
            # It goes on believing for ten seconds at least, and hears of nobody after one: no need to be quick here.
            await eventually(lambda: _is_refused(reader), within=30)
            await cluster.leader_among(others, subjects.OPERATIONS_STREAM)
            await eventually(lambda: _is_stored(writer), within=30)
            with pytest.raises(NoLeader):
                await reader.last_message("op1")
            cluster.join(old)
            await asyncio.to_thread(cluster.wait_healthy, PATIENCE)
            await eventually(lambda: _is_answered(reader), within=30)
            found = await reader.last_message("op1")
            assert found is not None
            assert found.subject.endswith(".requested")


async def _is_refused(journal: Journal) -> bool:
    """Return True once the leader itself is not believed."""
    try:
        await journal.last_message("op1")
    except NoLeader as error:
        return "does not hear of the others" in str(error)
    return False


async def _is_answered(journal: Journal) -> bool:
    try:
        await journal.last_message("op1")
    except JournalError:
        return False
    return True


async def _is_stored(journal: Journal) -> bool:
    try:
        await begin(journal, "op1")
    except JournalError:
        return False
    return True
