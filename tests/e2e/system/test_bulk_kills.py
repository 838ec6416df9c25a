"""A bulk operation whose process is killed goes on in another one, and does nothing twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from opstream_index.operation_row import row_of
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.runtime.crash_points import CRASH_VARIABLE, CrashPoint
from opstream_schemas.events import Failed
from tests.support.api.service import OperationStory, failure, serving, spec, started
from tests.support.broker.server import Broker, free_port
from tests.support.index.filled_index import FilledIndex
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

COUNT = 12
KILLED_AT = 7
"""The item after which the process ends, before an event says so."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FilledIndex]:
    """An index that is complete for the whole test."""
    found = FilledIndex(tmp_path)
    found.complete_until(time.time_ns() // 1000 + 3_600_000_000)
    yield found
    found.close()


@pytest.fixture
async def journal(link: Connection) -> Journal:
    """The journal on `link`."""
    journal = Journal(link, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
    await journal.start()
    return journal


class ApiProcesses:
    """Processes of the API, one after the other."""

    def __init__(self, broker: Broker, index: FilledIndex, stack: ExitStack) -> None:
        self._arguments = ("--nats", broker.url, "--index", f"sqlite:{index.path}")
        self._stack = stack

    def start(self, crash: str = "") -> tuple[Process, str]:
        """Start one, which ends itself at a crash point; return it and its URL."""
        port = free_port()
        extra = {CRASH_VARIABLE: crash} if crash else {}
        process = self._stack.enter_context(Process("api", *self._arguments, "--port", str(port), extra=extra))
        process.wait_for("serving on", 30)
        return process, f"http://127.0.0.1:{port}"


@pytest.fixture
def processes(broker: Broker, link: Connection, index: FilledIndex) -> Iterator[ApiProcesses]:
    """None runs yet."""
    with ExitStack() as stack:
        yield ApiProcesses(broker, index, stack)


async def test_a_kill_in_the_middle(
    processes: ApiProcesses, broker: Broker, link: Connection, journal: Journal, index: FilledIndex
) -> None:
    """The next process takes over once the lease is over. Each operation has one follow-up, and the history of the bulk
    operation names each once as its last word, also the one that was done and not recorded."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        for number in range(COUNT):
            own = f"bad-{number:02}"
            assert (await api.submit(headers={"Operation-Id": own})).status_code == 202
            story = await OperationStory.of(journal, own)
            await story.append(started(), Failed(error=failure()))
            index.write(row_of(story.operation))
    first, url = processes.start(f"{CrashPoint.API_ITEM_DONE}:{KILLED_AT}")
    params = {"filter": "status eq 'Failed'", "perSecond": "5"}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        accepted = await client.post(f"{url}/status:retry", params=params, headers={"Operation-Id": "all"})
        assert accepted.status_code == 202, accepted.text
        assert first.wait(20) == -signal.SIGKILL, first.output
        assert len(await journal.events(f"bad-{KILLED_AT - 1:02}-retry-1")) == 1
        second, url = processes.start()
        monitor: dict[str, Any] = (await client.get(f"{url}/status/all", headers={"Prefer": "wait=30"})).json()
        history = (await client.get(f"{url}/status/all/events")).json()["value"]
    assert monitor["status"] == "Succeeded", second.output
    assert (monitor["attempt"], monitor["result"]["done"], monitor["result"]["refused"]) == (2, COUNT, 0)
    items = [item for event in history for item in event["data"].get("bulk", {}).get("items", ())]
    assert [item["id"] for item in items] == [f"bad-{number:02}" for number in range(COUNT)]
    for number in range(COUNT):
        assert len(await journal.events(f"bad-{number:02}-retry-1")) == 1
