"""An API that has an ended operation in memory, while journal and view lose it: it answers as one that has just started
(docs/adr/0032)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from opstream.cli.app import main
from opstream_journal import Connection, announce_action
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from tests.support.api.service import Api, serving, spec
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
