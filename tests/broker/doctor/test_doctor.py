"""The command `opstream doctor`: its output, and its exit status for probes."""

from __future__ import annotations

import asyncio
import json

import pytest

from opstream_journal import Connection
from opstream_schemas import subjects
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker, free_port
from tests.support.system.processes import Process

pytestmark = pytest.mark.broker


def run(*options: str) -> tuple[int, str]:
    """Exit status and output of the command."""
    with Process("doctor", "--connect-timeout", "5s", *options) as doctor:
        return doctor.wait(40), doctor.output


@pytest.mark.usefixtures("link")
def test_all_is_well(broker: Broker) -> None:
    """The exit status is 0, and each line has a level and a name."""
    status, output = run("--nats", broker.url, "--monitoring", f"http://127.0.0.1:{broker.http_port}")
    assert status == 0, output
    rows = [line.split() for line in output.splitlines() if not line.startswith(" ")]
    assert {row[0] for row in rows} == {"ok", "note"}
    assert ["ok", "Syncing", "each"] in [row[:3] for row in rows]


async def test_findings(broker: Broker, link: Connection) -> None:
    """The exit status is 1; as JSON each finding has name, level, message and next step."""
    await link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER)
    status, output = run("--nats", broker.url, "--json", "--monitoring", f"http://127.0.0.1:{free_port()}")
    assert status == 1, output
    found = json.loads(output)
    assert found["isHealthy"] is False
    needed = {one["name"]: one for one in found["findings"] if one["level"] in {"warning", "critical"}}
    assert set(needed) == {"NotProvisioned", "MonitoringUnreachable"}
    assert set(needed["NotProvisioned"]) == {"name", "level", "message", "nextStep"}
    status, output = run("--nats", broker.url)
    assert status == 1
    first, second = output.splitlines()[:2]
    assert first == "critical  NotProvisioned        missing: consumer projector"
    assert second.startswith("  next step: run 'opstream provision'")


def test_no_broker() -> None:
    """Without a broker the exit status is 2, and the error says what to do."""
    status, output = run("--nats", f"nats://127.0.0.1:{free_port()}", "--connect-timeout", "1s")
    assert status == 2
    assert output.startswith("opstream: error: ")


async def test_an_old_broker(broker: Broker) -> None:
    """A broker below the floor is a finding, with the versions."""
    async with Proxy(broker.port) as proxy:
        proxy.version = "2.14.9"
        status, output = await asyncio.to_thread(run, "--nats", proxy.url)
    assert status == 1, output
    assert "ServerTooOld" in output
    assert "is nats-server 2.14.9, and opstream needs 2.15.0 or later" in output
