"""`opstream up --secure`: each service has a key of its own, which stays, and nothing else gets in."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from opstream_journal import BrokerUnreachable, connect
from opstream_schemas.urls import BrokerCredentials
from tests.support.system.echo_actions import MODULE, poll, submit
from tests.support.system.processes import Process, run

pytestmark = pytest.mark.e2e

READY = r"^opstream is ready: API (\S+), broker (\S+)$"
OPTIONS = ("--port", "0", "--nats-port", "0", "--data-dir", "data", "--actions", MODULE)


async def test_keys_of_roles(workplace: Path, http: httpx.Client) -> None:
    """An operation succeeds, a stranger is refused, the auditor's key shows the history; and after a restart the keys
    and the operation are the same. Without --secure the folder is refused."""
    keys = workplace / "data" / "access" / "keys"
    with Process("up", *OPTIONS, "--secure", cwd=workplace) as up:
        api, broker = up.wait_for(READY).groups()
        operation_id = submit(http, api, "say")
        assert poll(http, api, operation_id)["status"] == "Succeeded"
        for stranger in (BrokerCredentials(), BrokerCredentials(user="opstream", password="opstream")):
            with pytest.raises(BrokerUnreachable, match="refuses the login"):
                await connect([broker], "stranger", connect_timeout=0.5, credentials=stranger)
        replayed = run("replay", "--nats", broker, "--nats-nkey", str(keys / "auditor.nk"), cwd=workplace)
        assert operation_id in replayed.stdout, replayed.stderr
        up.send(signal.SIGTERM)
        assert up.wait(20) == 0
        assert " ERROR " not in up.output
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    with Process("up", *OPTIONS, "--secure", cwd=workplace) as up:
        api = up.wait_for(READY)[1]
        assert poll(http, api, operation_id)["status"] == "Succeeded"
        up.send(signal.SIGTERM)
        assert up.wait(20) == 0
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    refused = run("up", *OPTIONS, cwd=workplace)
    assert (refused.returncode, "belong to a broker with roles: write --secure" in refused.stderr) == (1, True)


def test_data_of_a_broker_without_roles(workplace: Path) -> None:
    """Operations of an earlier run without --secure are not hidden: the start ends with the next step."""
    (workplace / "data" / "jetstream" / "$G" / "streams" / "OPERATIONS").mkdir(parents=True)
    refused = run("up", *OPTIONS, "--secure", cwd=workplace)
    assert (refused.returncode, "belong to a broker without roles" in refused.stderr) == (1, True)
