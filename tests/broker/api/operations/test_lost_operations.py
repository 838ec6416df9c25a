"""An API that has an ended operation in memory, while journal and view lose it: it answers as one that has just started
(docs/adr/0032)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from opstream.cli.app import main
from opstream_journal import Connection, Journal, SnapshotStore, announce_action
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.events import Succeeded
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked, opened
from tests.support.projector.consistency import begun
from tests.support.projector.projection import LIFE, projector, running, settled
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OPERATIONS = 20


async def fill(broker: Broker) -> None:
    """Ended operations in journal and view."""
    async with linked(broker.url) as link:
        journal = await opened(link)
        await asyncio.gather(*(begun(journal, f"op-{number}", *LIFE) for number in range(OPERATIONS)))
        async with running(projector(link, journal)):
            await settled(link)


async def codes(api: Api) -> set[int]:
    """The status codes of all operations."""
    return {(await api.status(f"op-{number}")).status_code for number in range(OPERATIONS)}


async def conditions(api: Api) -> list[str]:
    """The names of what `/readyz` shows; empty while it can't answer."""
    answer = await api.client.get("/readyz")
    return [one["name"] for one in answer.json().get("conditions", ())]


async def test_a_forced_rebuild(broker: Broker, link: Connection, tmp_path: Path) -> None:
    """The results are shown as long as the view has them, and not a poll longer, without a restart of the API."""
    await announce_action(link, spec())
    await fill(broker)
    await link.close()
    async with serving(broker.url) as api:
        assert await codes(api) == {200}
        broker.stop()
        StreamFiles(broker.store, subjects.OPERATIONS_STREAM).remove()
        broker.start()
        async with linked(broker.url) as other:
            await provision(other, Sizing())

        async def is_noticed() -> bool:
            return "JournalSetback" in await conditions(api)

        await eventually(is_noticed, within=60)
        assert await codes(api) == {200}
        arguments = ["rebuild", "--force", "--export", str(tmp_path / "lost"), "--nats", broker.url]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert result.exit_code == 0, result.output
        assert "restart the APIs" in result.stderr
        assert await codes(api) == {404}


async def test_a_repeated_request(api_with_operations: Api, broker: Broker) -> None:
    """While the journal is known to have lost events, an id that only the view knows is not used again: the same
    request is the operation that ended, another one is refused, and so is one that had not ended. New ids work."""
    api = api_with_operations
    again = await api.submit(headers={"Operation-Id": "ended"})
    assert (again.status_code, again.json()["status"], again.json()["result"]) == (202, "Succeeded", {"rows": 7})
    other = await api.submit(body={"title": "Emma"}, headers={"Operation-Id": "ended"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "OperationIdReused")
    still = await api.submit(headers={"Operation-Id": "open"})
    assert (still.status_code, still.json()["error"]["code"]) == (400, "OperationIdReused")
    assert "of which the journal has lost all events: use a new one" in still.json()["error"]["message"]
    for _ in range(2):
        new = await api.submit(headers={"Operation-Id": "new"})
        assert (new.status_code, new.json()["status"]) == (202, "NotStarted")
    async with linked(broker.url) as link:
        journal = await opened(link)
        assert [await journal.last_message(one) for one in ("ended", "open")] == [None, None]
        assert len(await journal.events("new")) == 1


@pytest.fixture
async def api_with_operations(broker: Broker, link: Connection, journal: Journal) -> AsyncIterator[Api]:
    """An API that has noticed that the journal is gone, while the view has an ended operation and one that runs."""
    await announce_action(link, spec())
    view = SnapshotStore(link)
    async with serving(broker.url) as api:
        for name in ("ended", "open"):
            assert (await api.submit(headers={"Operation-Id": name})).status_code == 202
            story = await OperationStory.of(journal, name)
            await story.append(started())
            if name == "ended":
                await story.append(Succeeded(result=msgspec.Raw(b'{"rows":7}')))
            await view.put(story.operation, 0)
        await link.nc.jetstream().delete_stream(subjects.OPERATIONS_STREAM)
        await provision(link, Sizing())

        async def is_noticed() -> bool:
            return "JournalSetback" in await conditions(api)

        await eventually(is_noticed, within=60)
        yield api


async def test_an_older_copy(broker: Broker, link: Connection, tmp_path: Path) -> None:
    """A whole store that is older contradicts itself nowhere, and what came after the copy is unknown at once."""
    await announce_action(link, spec())
    await link.close()
    broker.stop()
    await asyncio.to_thread(shutil.copytree, broker.store, tmp_path / "copy")
    broker.start()
    await fill(broker)
    async with serving(broker.url) as api:
        assert await codes(api) == {200}
        broker.stop()
        await asyncio.to_thread(shutil.rmtree, broker.store)
        await asyncio.to_thread(shutil.copytree, tmp_path / "copy", broker.store)
        broker.start()

        async def is_back() -> bool:
            return await codes(api) == {404}

        await eventually(is_back, within=30)
