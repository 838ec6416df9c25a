"""Fixtures of the tests that need a real broker. Helpers live in `tests/support/`, never here."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import pytest

from opstream_journal import Connection, Journal, SnapshotStore, connect
from opstream_journal.provisioning.topology import Sizing
from tests.support.broker.provisioning import provision_started
from tests.support.broker.server import Broker, Cluster
from tests.support.webhooks.receiver import WebhookReceiver, receiving

_PROVISION_TIMEOUT: Final = 30.0


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A fresh broker (it takes about 40 ms to start)."""
    with Broker() as broker:
        yield broker


@pytest.fixture
async def link(broker: Broker) -> AsyncIterator[Connection]:
    """A connection to the broker, which has all streams, buckets and consumers."""
    async for link in _linked([broker], Sizing()):
        yield link


@pytest.fixture
async def journal(link: Connection) -> Journal:
    """The journal on `link`."""
    return await _journal(link)


@pytest.fixture
def view(link: Connection) -> SnapshotStore:
    """The view on `link`."""
    return SnapshotStore(link)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three fresh brokers (they take a second to start, rarely up to ten)."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
async def cluster_link(cluster: Cluster) -> AsyncIterator[Connection]:
    """A connection to the cluster, which has everything in three replicas."""
    async for link in _linked(cluster.nodes, Sizing(replicas=3)):
        yield link


@pytest.fixture
async def cluster_journal(cluster_link: Connection) -> Journal:
    """The journal on `cluster_link`."""
    return await _journal(cluster_link)


async def _linked(brokers: Sequence[Broker], sizing: Sizing) -> AsyncIterator[Connection]:
    servers = [broker.url for broker in brokers]
    link = await connect(servers, "test", connect_timeout=10, on_lost=logging.getLogger(__name__).error)
    try:
        # A cluster that has just been started may elect another leader at once, on a slow machine above all.
        await provision_started(link, sizing, _PROVISION_TIMEOUT)
        yield link
    finally:
        for broker in brokers:
            if broker.is_paused:
                broker.resume()  # closing waits for an answer
        await link.close()


async def _journal(link: Connection) -> Journal:
    journal = Journal(link, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
    await journal.start()
    return journal


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    """A receiver of webhooks, on loopback."""
    async with receiving() as receiver:
        yield receiver
