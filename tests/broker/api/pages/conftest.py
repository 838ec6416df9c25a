"""A service, its journal and a browser for all tests of a file, and a new session of the browser for each."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from opstream_journal import Connection, Journal, announce_action, connect, retry_until_ready
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.console.browser import CHROMIUM, REASON, ConsoleBrowser, browsing

LOOP = "module"


class ConsoleDesk(NamedTuple):
    """What a test of the console needs."""

    api: Api
    journal: Journal
    link: Connection
    broker: Broker
    browser: ConsoleBrowser

    @property
    def url(self) -> str:
        """The console's."""
        return f"{self.api.url}/console"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_desk() -> AsyncIterator[ConsoleDesk]:
    """A service whose catalog has one action."""
    if CHROMIUM is None:
        pytest.skip(REASON)
    with Broker() as broker:
        link = await connect([broker.url], "test", connect_timeout=10)
        try:
            await retry_until_ready(link, lambda: provision(link, Sizing()), 30.0)
            journal = Journal(link, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
            await journal.start()
            await announce_action(link, spec())
            async with serving(broker.url) as api, browsing() as browser:
                yield ConsoleDesk(api, journal, link, broker, browser)
        finally:
            await link.close()


@pytest_asyncio.fixture(loop_scope="module")
async def desk(whole_desk: ConsoleDesk) -> AsyncIterator[ConsoleDesk]:
    """The same for one test: its sessions are closed after it."""
    yield whole_desk
    await whole_desk.browser.forget()
