"""Keys with real processes: made by one command, known to two APIs, ended by another command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.broker.server import Broker
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that has been provisioned."""
    with Broker() as broker:
        assert run("provision", "--nats", broker.url).returncode == 0
        yield broker


def port_of(api: Process) -> int:
    """The port of an API that serves."""
    return int(api.wait_for(r"serving on \S+ port (\d+)")[1])


def made(broker: Broker, *options: str) -> str:
    """A new key."""
    done = run("apikey", "add", "--nats", broker.url, "--subject", "ci", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_a_key_is_known_and_revoked_within_a_second_in_every_api(broker: Broker, tmp_path: Path) -> None:
    """Neither API is restarted; a request that waits ends, too. The commands send the key, and show it nowhere."""
    options = ("api", "--nats", broker.url, "--port", "0", "--auth", "keys")
    with Process(*options, cwd=tmp_path) as one, Process(*options, cwd=tmp_path) as other:
        urls = [f"http://127.0.0.1:{port_of(api)}" for api in (one, other)]
        key = made(broker, "--scope", "read,submit")
        async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {key}"}) as http:

            async def answers(status: int) -> bool:
                found = [(await http.get(f"{url}/openapi.json")).status_code for url in urls]
                return found == [status, status]

            await eventually(lambda: answers(200), within=2)
            shown = run("status", "none", "--url", urls[0], extra={"OPSTREAM_TOKEN": key})
            assert (shown.returncode, "no operation with the id" in shown.stderr) == (1, True)
            script = tmp_path / "token.py"
            script.write_text(f"print('{key}')", encoding="utf-8")
            by_command = run("status", "none", "--url", urls[1], "--token-command", f"python3 {script}")
            assert by_command.stderr == shown.stderr.replace(urls[0], urls[1])
            assert run("status", "none", "--url", urls[0]).returncode == 1
            done = run("apikey", "revoke", "--nats", broker.url, key.split("_")[1])
            assert done.returncode == 0, done.stderr
            await eventually(lambda: answers(401), within=2)
        secret = key.split("_", 2)[2]
        assert secret not in one.output + other.output + shown.stdout + shown.stderr + done.stderr


def test_other_machines_are_not_served_by_mistake(broker: Broker) -> None:
    """The process ends with what to do; by name it serves."""
    for command in ("api", "hub"):
        refused = run(command, "--nats", broker.url, "--host", "0.0.0.0", "--port", "0")
        assert refused.returncode == 2
        assert re.search(r"--auth keys .* or --insecure", refused.stderr)
    with Process("api", "--nats", broker.url, "--host", "0.0.0.0", "--port", "0", "--insecure") as api:
        assert httpx.get(f"http://127.0.0.1:{port_of(api)}/healthz", trust_env=False).status_code == 200


def test_a_broken_key_file_ends_the_start(broker: Broker, tmp_path: Path) -> None:
    """With the file's name, and not with a door that is open."""
    path = tmp_path / "keys.json"
    done = run("api", "--nats", broker.url, "--port", "0", "--auth", "keys", "--auth-keys-file", str(path))
    assert done.returncode == 1
    assert str(path) in done.stderr
