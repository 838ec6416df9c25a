"""`opstream restore --replace` that is interrupted: what is not deleted yet is deleted on request only."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from opstream.backup.stream_plan import JOURNAL
from opstream.cli.app import main
from opstream_journal import Connection, Journal, JournalUnavailable
from opstream_journal.errors import RestoreUnfinished
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import check_provisioned
from opstream_schemas import subjects
from tests.support.broker.server import Broker
from tests.support.journal.populated_journal import populate

pytestmark = pytest.mark.broker


async def opstream(*arguments: str) -> Result:
    """Run a command in this process, in a thread."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


@pytest.mark.parametrize("lost", ["update_stream", "delete_stream"])
async def test_interrupted_before_the_first_stream_is_deleted(
    broker: Broker, link: Connection, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The broker is lost while streams are marked, or once all are: no service starts, and the streams are still
    deleted with --replace only."""
    await populate(journal, 4)
    folder = (await opstream("backup", str(tmp_path), "--nats", broker.url)).stdout.strip()
    before = await stream_bounds(link, JOURNAL)
    at_broker = getattr(admin, lost)

    async def interrupted(connection: Connection, name: str, *args: Any) -> Any:
        if lost == "delete_stream" or name == subjects.TIMERS_STREAM:
            raise JournalUnavailable("the broker is away", maybe_stored=False)
        return await at_broker(connection, name, *args)

    arguments = ("restore", folder, "--nats", broker.url)
    with monkeypatch.context() as patch:
        patch.setattr(admin, lost, interrupted)
        assert (await opstream(*arguments, "--replace")).exit_code == 1
    if lost == "delete_stream":
        with pytest.raises(RestoreUnfinished, match="to be replaced from"):
            await check_provisioned(link)
    refused = await opstream(*arguments)
    assert refused.exit_code == 1
    assert "add --replace" in refused.stderr
    assert await stream_bounds(link, JOURNAL) == before
    done = await opstream(*arguments, "--replace")
    assert done.exit_code == 0, done.stderr
    await check_provisioned(link)
