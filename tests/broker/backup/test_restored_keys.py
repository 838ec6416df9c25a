"""`opstream restore` and API keys: which are usable again, and a backup that has none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from opstream_journal import Connection
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import check_provisioned, provision
from opstream_journal.provisioning.restore_mark import own_metadata
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from tests.support.broker.server import Broker

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("link")]

ACCESS = subjects.bucket_stream(subjects.ACCESS_BUCKET)


@pytest.fixture
def empty() -> Iterator[Broker]:
    """Another broker, which has nothing."""
    with Broker("other") as other:
        yield other


async def opstream(*arguments: str) -> Result:
    """Run a command in this process, in a thread."""
    done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert done.exit_code == 0, done.stderr
    return done


async def add_key(url: str, subject: str) -> str:
    """The id of a new key."""
    done = await opstream("apikey", "add", "--subject", subject, "--scope", "read", "--nats", url)
    return done.stdout.split("_")[1]


async def states(url: str) -> dict[str, str]:
    """The state of each key by its id."""
    lines = (await opstream("apikey", "list", "--json", "--nats", url)).stdout.splitlines()
    return {key["id"]: key["state"] for key in map(json.loads, lines)}


async def backup(tmp_path: Path, url: str) -> str:
    return (await opstream("backup", str(tmp_path / "backups"), "--nats", url)).stdout.strip()


async def test_keys_that_were_revoked_after_the_backup(broker: Broker, empty: Broker, tmp_path: Path) -> None:
    """They are usable again, and the next steps say so, with the commands; --revoke-keys leaves none usable."""
    leaked, other, old = [await add_key(broker.url, name) for name in ("leaked", "other", "old")]
    await opstream("apikey", "revoke", old, "--nats", broker.url)
    folder = await backup(tmp_path, broker.url)
    await opstream("apikey", "revoke", leaked, "--nats", broker.url)
    done = await opstream("restore", folder, "--nats", empty.url)
    assert await states(empty.url) == {leaked: "valid", other: "valid", old: "revoked"}
    assert "2 API keys are usable, also those that were revoked after" in done.stderr
    assert "'opstream apikey list'" in done.stderr
    assert "'opstream apikey revoke ID'" in done.stderr
    done = await opstream("restore", folder, "--nats", empty.url, "--replace", "--revoke-keys")
    assert set((await states(empty.url)).values()) == {"revoked"}
    assert "2 API keys were revoked" in done.stderr


@pytest.mark.parametrize("is_marked", [False, True])
async def test_a_backup_from_before_the_keys(
    broker: Broker, link: Connection, tmp_path: Path, *, is_marked: bool
) -> None:
    """--replace leaves the keys alone that the broker has, and says so; the mark of another restore goes."""
    await admin.delete_stream(link, ACCESS)
    folder = await backup(tmp_path, broker.url)
    await provision(link, Sizing())
    key = await add_key(broker.url, "shop")
    if is_marked:
        info = await admin.stream_info(link, ACCESS)
        assert info is not None
        await admin.update_stream(link, ACCESS, {"metadata": own_metadata(info["config"], "another backup")})
    done = await opstream("restore", folder, "--nats", broker.url, "--replace")
    assert f"left alone: {ACCESS}" in done.stderr
    await check_provisioned(link)
    assert await states(broker.url) == {key: "valid"}
