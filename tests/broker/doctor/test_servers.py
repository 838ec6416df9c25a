"""Each server of the cluster is looked at as a client meets it, with real certificates, and with some that are down."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opstream.broker_setup.certificates import PrivateAuthority
from opstream.doctor.examination import Examination
from opstream.doctor.server_look import ServerLook, look_at_servers
from opstream.doctor.system_findings import Level
from opstream_journal import connect
from opstream_schemas.urls import BrokerCredentials
from tests.support.broker.server import Broker, free_port
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


def tls_lines(folder: Path, authority: PrivateAuthority, name: str, expires: datetime | None = None) -> str:
    """What a server with a certificate of its own has in its configuration."""
    pair = authority.issue(name, ("127.0.0.1",), expires=expires)
    (folder / f"{name}.pem").write_bytes(pair.certificate)
    (folder / f"{name}.key").write_bytes(pair.key)
    return f'tls {{ cert_file: "{folder}/{name}.pem", key_file: "{folder}/{name}.key" }}'


async def test_each_server_has_its_own_finding(tmp_path: Path) -> None:
    """Connected to a server that is well, the doctor names those with an expired and a foreign certificate, with
    subject and end, one that is down, and one that says nothing."""
    authority = PrivateAuthority()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    credentials = BrokerCredentials(tls_ca=str(tmp_path / "ca.pem"))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    down = f"nats://127.0.0.1:{free_port()}"

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    with (
        Broker("good", extra=tls_lines(tmp_path, authority, "good")) as good,
        Broker("old", extra=tls_lines(tmp_path, authority, "old", yesterday)) as old,
        Broker("foreign", extra=tls_lines(tmp_path, PrivateAuthority("another"), "foreign")) as foreign,
    ):
        async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
            silent = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            urls = [good.url, old.url, foreign.url, down, silent]
            link = await connect(urls, "test", connect_timeout=30, credentials=credentials)
            try:
                async with asyncio.timeout(30):
                    found = await Examination(link, credentials=credentials, watch=0.5).run()
            finally:
                await link.close()
    about = {url: next(one for one in found if f"{url}" in one.message) for url in urls}
    assert {url: (one.name, one.level) for url, one in about.items()} == {
        good.url: ("Certificate", Level.OK),
        old.url: ("CertificateEnds", Level.CRITICAL),
        foreign.url: ("CertificateRefused", Level.CRITICAL),
        down: ("ServerUnreachable", Level.WARNING),
        silent: ("ServerUnreachable", Level.WARNING),
    }
    assert about[old.url].message.startswith(
        f"the certificate of old ({old.url}) [CN=old] has ended on {yesterday:%Y-%m}"
    )
    assert "is not signed by a CA that this process trusts" in about[foreign.url].message
    assert "[CN=foreign], valid until 20" in about[foreign.url].message
    assert "--nats-tls-ca" in about[foreign.url].next_step


async def test_a_server_that_only_the_cluster_names(tmp_path: Path) -> None:
    """The certificate of a server that was not given, but that the cluster has, is looked at, too."""
    authority = PrivateAuthority()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    credentials = BrokerCredentials(tls_ca=str(tmp_path / "ca.pem"))
    ports = [free_port(), free_port()]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    first, second = (
        Broker(
            name,
            extra=f"cluster {{ name: lab, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
            + tls_lines(tmp_path, authority, name, expires),
        )
        for name, port, expires in (("n1", ports[0], None), ("n2", ports[1], yesterday))
    )
    with first, second:

        async def look() -> dict[str, ServerLook]:
            # A server names the others to whom connects, soon after it has a route to them.
            link = await connect([first.url], "test", connect_timeout=10, credentials=credentials)
            try:
                found = {one.name: one for one in await look_at_servers(link.nc, credentials)}
            finally:
                await link.close()
            return found if len(found) == 2 else {}

        looks = await eventually(look, within=20, poll=0.1)
    assert (looks["n1"].is_given, looks["n1"].refusal, looks["n1"].subject) == (True, "", "CN=n1")
    assert (looks["n2"].is_given, looks["n2"].url) == (False, second.url)
    assert "has expired" in looks["n2"].refusal
    assert looks["n2"].ends_at is not None
    assert looks["n2"].ends_at < datetime.now(UTC)
