"""Fixtures of the tests that start real processes. Helpers live in `tests/support/`, never here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from opstream_journal import Connection
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.echo_actions import write_actions


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker of the test's own, without streams."""
    with Broker() as broker:
        yield broker


@pytest.fixture
async def link(broker: Broker) -> AsyncIterator[Connection]:
    """A connection to the broker, which is provisioned."""
    async with linked(broker.url) as link:
        await provision(link, Sizing())
        yield link


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A working directory with a module of actions, `echoes`, in it."""
    write_actions(tmp_path)
    return tmp_path


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """An HTTP client that no proxy of the environment comes between."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client
