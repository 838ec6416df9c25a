"""`opstream restore` to a cluster of which one server is still starting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from tests.support.broker.server import Broker, Cluster

pytestmark = pytest.mark.broker


async def opstream(*arguments: str) -> Result:
    """Run a command in this process, in a thread."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


@pytest.mark.usefixtures("link")
async def test_a_server_comes_late(broker: Broker, cluster: Cluster, tmp_path: Path) -> None:
    """Three copies are refused while one of three servers is not there: the restore asks again for some seconds, so
    that one right after the start of a cluster need not be begun again."""
    made = await opstream("backup", str(tmp_path / "backups"), "--nats", broker.url)
    leader = cluster.nodes[0].monitor("/jsz")["meta_cluster"]["leader"]
    late, one = sorted(cluster.nodes, key=lambda node: node.name == leader)[1:]  # without it they would elect first
    late.kill()
    restoring = asyncio.create_task(
        opstream("restore", made.stdout.strip(), "--replicas", "3", "--nats", one.url, "--connect-timeout", "20")
    )
    late.start()
    done = await restoring
    assert done.exit_code == 0, done.stderr
