"""`opstream broker-config`: what it writes, that nats-server takes it, and that it overwrites nothing."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Final

import pytest

from opstream_journal import BrokerUnreachable, Connection, JournalError, connect
from opstream_journal.provisioning.provision import check_provisioned, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.names import Kind
from opstream_schemas.urls import BrokerCredentials
from tests.support.broker.server import SERVER, free_port
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ACTIONS: Final = ("--actions", "bookshelf.actions")


def write(folder: Path, *more: str) -> str:
    """Run the command with `out` in a folder; return what it printed."""
    done = run("broker-config", "--out", "out", *ACTIONS, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "more",
    [
        ("--no-tls",),
        ("--test-certificates", "--subscriber", "mailer", "--subscriber", "billing-2"),
        ("--servers", "3", "--test-certificates", "--server-host", "::1"),
        ("--servers", "3", "--no-tls", "--server-host", "a.example,b.example,c.example"),
    ],
)
def test_nats_server_takes_it(tmp_path: Path, more: tuple[str, ...]) -> None:
    """nats-server finds no mistake in any of the files, private ones are readable by their owner only, and a second
    call changes none of them."""
    write(tmp_path, *more)
    out = tmp_path / "out"
    configs = sorted(out.glob("n?.conf"))
    assert len(configs) == (3 if "--servers" in more else 1)
    for config in configs:
        checked = subprocess.run([SERVER, "-t", "-c", config], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
    private = [*out.glob("keys/*"), *out.glob("tls/*.key"), *configs]
    assert len(private) > 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = run("broker-config", "--out", "out", *ACTIONS, *more, cwd=tmp_path)
    assert (again.returncode, "exists: choose another folder with --out" in again.stderr) == (1, True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_keys_that_are_used_again(tmp_path: Path) -> None:
    """With --keys, only what is missing there is made."""
    write(tmp_path, "--no-tls")
    keys = tmp_path / "out" / "keys"
    (keys / "api.nk").rename(tmp_path / "old.nk")
    write_again = run(
        *("broker-config", "--out", "next", "--keys", "out/keys", "--no-tls", "--subscriber", "mailer", *ACTIONS),
        cwd=tmp_path,
    )
    assert write_again.returncode == 0, write_again.stderr
    fresh = tmp_path / "next" / "keys"
    assert (fresh / "runner.nk").read_bytes() == (keys / "runner.nk").read_bytes()
    assert (fresh / "api.nk").read_bytes() != (tmp_path / "old.nk").read_bytes()
    assert (fresh / "subscriber-mailer.nk").exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ((), "choose one: --tls-cert, --tls-key and --tls-ca"),
        (("--no-tls", "--test-certificates"), "choose one: "),
        (("--tls-cert", "a.pem"), "--tls-cert, --tls-key and --tls-ca belong together"),
        (("--no-tls", "--servers", "3", "--server-host", "a,b"), "there are 2 for --servers 3"),
        (("--no-tls", "--subscriber", "a.b"), "--subscriber"),
        (("--no-tls", "--nats-port", "0"), "--nats-port: write the port"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: tuple[str, ...], text: str) -> None:
    """What can't be meant is refused with the next step, and nothing is written."""
    done = run("broker-config", "--out", "out", *ACTIONS, *more, cwd=tmp_path)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


async def test_three_servers_with_tls(tmp_path: Path) -> None:
    """Three servers find each other by TLS and keep three copies; a role works on each of them, and a process without a
    key is refused."""
    port, cluster_port = (min(free_port() for _ in range(3)) for _ in range(2))
    write(
        tmp_path,
        *("--servers", "3", "--test-certificates"),
        *("--nats-port", str(port), "--cluster-port", str(cluster_port)),
    )
    out = tmp_path / "out"
    ca = str(out / "tls" / "ca.pem")
    nodes = [Process(command=[str(SERVER), "-c", str(out / f"n{number}.conf")]) for number in (1, 2, 3)]
    try:
        for node in nodes:
            node.wait_for("Server is ready")
        urls = [f"nats://127.0.0.1:{port + number}" for number in range(3)]
        admin = BrokerCredentials(nkey=str(out / "keys" / "admin.nk"), tls_ca=ca)
        operator = await connect(urls, "operator", connect_timeout=20, credentials=admin)

        async def is_made() -> bool:
            try:
                await provision(operator, Sizing(replicas=3))
            except JournalError:  # the servers do not know each other yet
                return False
            return True

        await eventually(is_made, within=30, poll=0.25)
        api = BrokerCredentials(nkey=str(out / "keys" / "api.nk"), tls_ca=ca)
        for number, url in enumerate(urls):
            connection = await connect([url], "api", connect_timeout=10, credentials=api)
            await eventually(lambda c=connection: _is_provisioned(c), within=20, poll=0.25)
            subject = subjects.event_subject(f"op{number}", Kind("book", "upload-start"), "requested")
            answer = await connection.nc.request(subject, b"{}", timeout=10)
            assert b'"seq":' in answer.data
            await connection.close()
        await operator.close()
        with pytest.raises(BrokerUnreachable, match="refuses the login"):
            await connect(urls, "nobody", connect_timeout=1, credentials=BrokerCredentials(tls_ca=ca))
    finally:
        for node in nodes:
            node.close()


async def _is_provisioned(connection: Connection) -> bool:
    try:
        await check_provisioned(connection)
    except JournalError:
        return False
    return True
