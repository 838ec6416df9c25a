"""Every service and command logs in at a broker that asks for it, and none shows its password."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.broker.server import Broker, free_port
from tests.support.system.echo_actions import MODULE, write_actions
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

PASSWORD: Final = "s3cret-0815"
LOGIN: Final = {"OPSTREAM_NATS_USER": "ada", "OPSTREAM_NATS_PASSWORD": PASSWORD}
WRONG: Final = LOGIN | {"OPSTREAM_NATS_PASSWORD": f"{PASSWORD}-old"}
COMMANDS: Final = (
    ("provision",),
    ("verify",),
    ("verify", "--chain"),
    ("rebuild",),
    ("backup", "backups"),
    ("replay",),
    ("export", "events.parquet", "--overwrite"),
    ("parked",),
    ("deliveries",),
    ("redeliver", "--endpoint", "mail"),
    ("audit", "no-such-id"),
    ("fail", "no-such-id"),
)
SERVICES: Final = (
    ("projector", "--health-port"),
    ("webhooks", "--health-port"),
    ("runner", "--actions", MODULE, "--health-port"),
    ("api", "--port"),
)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(extra=f'authorization {{ user: "ada", password: "{PASSWORD}" }}') as broker:
        assert run("provision", "--nats", broker.url, extra=LOGIN).returncode == 0
        yield broker


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command(broker: Broker, tmp_path: Path, command: tuple[str, ...]) -> None:
    """It logs in with the variables; with a wrong password it ends with one line, which names the variable."""
    options = (*command, "--nats", broker.url, "--connect-timeout", "1s")
    taken = run(*options, extra=LOGIN, cwd=tmp_path)
    assert taken.returncode in {0, 1}, taken.stderr
    assert "refuses" not in taken.stderr
    refused = run(*options, extra=WRONG, cwd=tmp_path)
    assert refused.returncode == 1
    assert "refuses the login" in refused.stderr
    assert "OPSTREAM_NATS_PASSWORD" in refused.stderr
    assert PASSWORD not in refused.stdout + refused.stderr


def is_ready(client: httpx.Client, url: str) -> bool:
    """Whether the service says that it does its job."""
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service[0])
def test_a_service(broker: Broker, tmp_path: Path, service: tuple[str, ...]) -> None:
    """It logs in, and its password is in no option, no log line at the lowest level, and not in /readyz; also not while
    the broker is away."""
    write_actions(tmp_path)
    port = free_port()
    options = (*service, str(port), "--nats", broker.url, "--log-level", "debug")
    with Process(*options, extra=LOGIN, cwd=tmp_path) as process, httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/readyz"
        asyncio.run(eventually(lambda: is_ready(client, url), within=30, poll=0.1))
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        broker.kill()
        process.wait_for("connection is lost")
        shown += client.get(url).text
        broker.start()
        process.wait_for("connection is back")
        assert PASSWORD not in shown + process.output
    refused = run(*options, "--connect-timeout", "1s", extra=WRONG, cwd=tmp_path)
    assert refused.returncode == 1
    assert "refuses the login" in refused.stderr
    assert PASSWORD not in refused.stderr


def test_credentials_on_the_command_line(broker: Broker) -> None:
    """They still work in the URL, with a warning that names the variables; in the variable there is none."""
    url = broker.url.replace("://", f"://ada:{PASSWORD}@")
    given = run("parked", "--nats", url)
    assert given.returncode == 0
    assert "opstream: warning: nats://…@127.0.0.1:" in given.stderr
    assert "set OPSTREAM_NATS_USER and OPSTREAM_NATS_PASSWORD" in given.stderr
    assert PASSWORD not in given.stdout + given.stderr
    assert "warning" not in run("parked", extra={"OPSTREAM_NATS_URL": url}).stderr


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OPSTREAM_NATS_USER": "ada"}, "is set without OPSTREAM_NATS_PASSWORD: set both"),
        (LOGIN | {"OPSTREAM_NATS_TOKEN": PASSWORD}, "several logins: leave one"),
        ({"OPSTREAM_NATS_CREDS": "missing.creds"}, "does not exist: write the path of a file"),
    ],
)
def test_what_is_no_login(variables: dict[str, str], problem: str) -> None:
    """It is one line that says what to write, without the password."""
    refused = run("parked", extra=variables)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert problem in line
    assert PASSWORD not in line
