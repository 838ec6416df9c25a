"""The journal goes back while an API runs that has polled an operation as open; another replica polled its end.

The view has the end. So has the client, which the other replica has told. No status may go back behind it (ADR 0032).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, SnapshotStore, announce_action
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.events import Progressed, Succeeded
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

SUCCEEDED = Succeeded(result=msgspec.Raw(b'{"rows":7}'))


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


class Backup:
    """The files of the journal as they were when it was made.

    Args:
        broker: the server.
        link: a connection to it; both methods wait until it is there again.
        folder: for the copy.
    """

    def __init__(self, broker: Broker, link: Connection, folder: Path) -> None:
        self._broker = broker
        self._link = link
        self._files = StreamFiles(broker.store, subjects.OPERATIONS_STREAM)
        self._copy = folder / "copy"

    async def make(self) -> None:
        """Copy the files of the stopped broker."""
        async with self._stopped():
            shutil.copytree(self._files.folder, self._copy)

    async def restore(self) -> None:
        """Put them back; without a copy, provision an empty journal."""
        async with self._stopped():
            self._files.remove()
            if self._copy.exists():
                shutil.copytree(self._copy, self._files.folder)
        await provision(self._link, Sizing())

    @contextlib.asynccontextmanager
    async def _stopped(self) -> AsyncIterator[None]:
        back = asyncio.Event()
        self._link.on_reconnect(back.set)
        self._broker.stop()
        yield
        self._broker.start()
        async with asyncio.timeout(10):
            await back.wait()
        self._link.remove_reconnect_callback(back.set)


async def polled(api: Api, operation_id: str) -> httpx.Response:
    """The next status that is no 503: the service waits for its connection, too."""
    answers = []

    async def is_answered() -> bool:
        answers.append(await api.status(operation_id))
        return bool(answers[-1].status_code != 503)

    await eventually(is_answered, within=20)
    return answers[-1]


@pytest.mark.parametrize("made", ["never", "requested", "polled"])
async def test_the_view_has_the_end(
    api: Api, broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, tmp_path: Path, made: str
) -> None:
    """The journal has no event of the operation, fewer than the cached state, or as many: the end is the answer."""
    backup = Backup(broker, link, tmp_path)
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    operation_id = story.operation.id
    if made == "requested":
        await backup.make()
    await story.append(started())
    assert (await polled(api, operation_id)).json()["status"] == "Running"
    if made == "polled":
        await backup.make()
        assert (await polled(api, operation_id)).json()["status"] == "Running"
    await view.put(await story.append(SUCCEEDED), 0)

    await backup.restore()

    for _ in range(2):
        answer = await polled(api, operation_id)
        assert (answer.status_code, answer.json().get("status")) == (200, "Succeeded"), answer.text
        assert answer.json()["result"] == {"rows": 7}


async def test_another_history(
    api: Api, broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, tmp_path: Path
) -> None:
    """What is recorded after the setback has the sequences of what is lost; the end remains."""
    backup = Backup(broker, link, tmp_path)
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    operation_id = story.operation.id
    await backup.make()
    await story.append(started())
    assert (await polled(api, operation_id)).json()["status"] == "Running"
    await view.put(await story.append(SUCCEEDED), 0)

    await backup.restore()
    again = await OperationStory.of(journal, operation_id)
    await again.append(started(), Progressed(percent=1.0), Progressed(percent=2.0))

    assert (await polled(api, operation_id)).json()["status"] == "Succeeded"


async def test_the_view_is_behind(
    api: Api, broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, tmp_path: Path
) -> None:
    """Neither the journal nor the view knows as much as the service, whose state is shown."""
    backup = Backup(broker, link, tmp_path)
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    operation_id = story.operation.id
    await view.put(story.operation, 0)
    await backup.make()
    await story.append(started())
    assert (await polled(api, operation_id)).json()["status"] == "Running"

    await backup.restore()

    for _ in range(2):
        assert (await polled(api, operation_id)).json()["status"] == "Running"
