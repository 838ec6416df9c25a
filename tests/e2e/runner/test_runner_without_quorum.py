"""Services that are started in a cluster without quorum say so, and end with status 1 after their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.broker.server import Cluster
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e


@pytest.fixture
def lonely() -> Iterator[str]:
    """The URL of the only server of three that runs."""
    cluster = Cluster()
    try:
        cluster.nodes[0].start()
        yield cluster.nodes[0].url
    finally:
        cluster.close()


@pytest.mark.parametrize(
    "command", [("runner", "--actions", "tests.support.runner.stubborn_actions"), ("projector",), ("webhooks",)]
)
def test_started_without_quorum(lonely: str, command: tuple[str, ...]) -> None:
    """The error names the missing leader and what to start, and does not ask whether JetStream is enabled."""
    with Process(*command, "--nats", lonely, "--connect-timeout", "3s") as process:
        assert process.wait(30) == 1
        (error,) = [line for line in process.output.splitlines() if line.startswith("opstream: error: ")]
        assert "start the servers of the cluster that are down" in error
        assert "enabled" not in error
