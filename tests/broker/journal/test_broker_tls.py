"""TLS to the broker, with real certificates: what works, and that each failure is named with its next step."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opstream.broker_setup.certificates import PrivateAuthority
from opstream_journal import BrokerUnreachable, connect
from opstream_journal.broker_login import public_key, read_seed, seed_of
from opstream_journal.errors import InvalidCredentials
from opstream_schemas.urls import BrokerCredentials
from tests.support.broker.server import Broker, free_port
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

LOCAL = ("127.0.0.1", "localhost")


class Files:
    """The files of an authority, and of what it signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.renew()
        self.issue("server", LOCAL)
        self.issue("client", ())

    def renew(self) -> None:
        """Make another authority of the same name."""
        self.authority = PrivateAuthority()
        (self.folder / "ca.pem").write_bytes(self.authority.certificate)

    def issue(self, name: str, hosts: tuple[str, ...], expires: datetime | None = None) -> None:
        pair = self.authority.issue(name, hosts, expires=expires)
        (self.folder / f"{name}.pem").write_bytes(pair.certificate)
        (self.folder / f"{name}.key").write_bytes(pair.key)

    def server_lines(self, more: str = "") -> str:
        folder = self.folder
        files = f'cert_file: "{folder}/server.pem", key_file: "{folder}/server.key", ca_file: "{folder}/ca.pem"'
        return f"tls {{ {files}, {more} }}"

    @property
    def ca(self) -> BrokerCredentials:
        return BrokerCredentials(tls_ca=str(self.folder / "ca.pem"))

    @property
    def client(self) -> BrokerCredentials:
        return BrokerCredentials(
            tls_ca=str(self.folder / "ca.pem"),
            tls_cert=str(self.folder / "client.pem"),
            tls_key=str(self.folder / "client.key"),
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def refusal(url: str, credentials: BrokerCredentials, *more: str) -> str:
    """The text with which a start ends."""
    with pytest.raises(BrokerUnreachable) as refused:
        await connect([url, *more], "test", connect_timeout=1, credentials=credentials)
    return str(refused.value)


async def test_renewed_files(files: Files) -> None:
    """A process with a certificate of its own connects, and again after all certificates were replaced: it reads its
    files at each connect. Until its own are replaced, its log says what is wrong."""
    with Broker(extra=files.server_lines("verify: true")) as broker:
        connection = await connect([broker.url], "test", connect_timeout=10, credentials=files.client)
        old = {name: (files.folder / name).read_bytes() for name in ("ca.pem", "client.pem", "client.key")}
        broker.kill()
        files.renew()
        files.issue("server", LOCAL)
        files.issue("client", ())
        new = {name: (files.folder / name).read_bytes() for name in old}
        broker.start()
        for name, content in old.items():
            (files.folder / name).write_bytes(content)
        await eventually(lambda: "certificate verify failed" in str(connection.nc.last_error))
        for name, content in new.items():
            (files.folder / name).write_bytes(content)
        await eventually(lambda: connection.is_connected)
        await connection.close()


async def test_certificates_of_the_broker(files: Files, tmp_path: Path) -> None:
    """An unknown authority, an expired certificate and one for another name are told apart; so is a process that does
    not know which authority to trust."""
    other = tmp_path / "other.pem"
    other.write_bytes(PrivateAuthority("another").certificate)
    with Broker(extra=files.server_lines()) as broker:
        text = await refusal(broker.url, BrokerCredentials(tls_ca=str(other)))
        assert "is not signed by a CA that this process trusts" in text
        assert "give --nats-tls-ca" in text
        assert "give --nats-tls-ca" in await refusal(broker.url, BrokerCredentials())
        broker.kill()
        files.issue("server", LOCAL, datetime.now(UTC) - timedelta(days=1))
        broker.start()
        assert "has expired: renew it, and reload the broker" in await refusal(broker.url, files.ca)
        broker.kill()
        files.issue("server", ("elsewhere.example",))
        broker.start()
        assert "is for another name" in await refusal(broker.url, files.ca)


async def test_the_end_of_a_connection(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """A server that ends a connection of TLS leaves no line of asyncio in the log, only that it is lost."""
    with Broker(extra=files.server_lines()) as broker:
        connection = await connect([broker.url], "test", connect_timeout=10, credentials=files.ca)
        broker.kill()
        await eventually(lambda: not connection.is_connected, within=10)
        broker.start()
        await eventually(lambda: connection.is_connected, within=10)
        await connection.close()
    assert [one.message for one in caplog.records if one.name == "asyncio"] == []
    assert "the broker connection is lost" in caplog.text


async def test_the_next_server_after_a_bad_certificate(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose certificate has expired does not keep a process from the next one."""
    monkeypatch.setattr("nats.aio.client.shuffle", lambda _servers: None)
    with Broker(extra=files.server_lines()) as good:
        files.issue("server", LOCAL, datetime.now(UTC) - timedelta(days=1))
        with Broker(extra=files.server_lines()) as bad:
            connection = await connect([bad.url, good.url], "test", connect_timeout=10, credentials=files.ca)
            assert connection.is_connected
            await connection.close()


async def test_each_server_has_its_own_reason(files: Files) -> None:
    """Of several servers the error says which has what: one certificate has expired, one is for another name, one
    server is down."""
    down = f"nats://127.0.0.1:{free_port()}"
    files.issue("server", LOCAL, datetime.now(UTC) - timedelta(days=1))
    with Broker(extra=files.server_lines()) as expired:
        files.issue("server", ("elsewhere.example",))
        with Broker(extra=files.server_lines()) as misnamed:
            urls = [expired.url, misnamed.url.removeprefix("nats://"), down]
            with pytest.raises(BrokerUnreachable) as refused:
                await connect(urls, "test", connect_timeout=3, credentials=files.ca)
    text = str(refused.value)
    assert f"the certificate of the broker at {expired.url} has expired" in text
    assert f"the certificate of the broker at 127.0.0.1:{misnamed.port} is for another name" in text
    assert f"nothing answered at {down} within 3 s" in text


async def test_servers_of_one_reason(files: Files) -> None:
    """What two servers have in common is said once, with both."""
    with Broker(extra=files.server_lines()) as first, Broker(extra=files.server_lines()) as second:
        text = await refusal(first.url, BrokerCredentials(), second.url)
    assert text.startswith(f"the certificate of the broker at {first.url}, {second.url} is not signed by a CA")
    assert text.count("--nats-tls-ca") == 1


async def test_the_log_names_the_server(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """A process that has lost its connection says which server has a bad certificate."""
    with Broker(extra=files.server_lines()) as broker:
        connection = await connect([broker.url], "test", connect_timeout=10, credentials=files.ca)
        broker.kill()
        files.issue("server", LOCAL, datetime.now(UTC) - timedelta(days=1))
        with caplog.at_level(logging.DEBUG):
            broker.start()
            await eventually(lambda: f"the broker at {broker.url} has expired" in caplog.text)
        await connection.close()


async def test_a_handshake_without_an_answer(files: Files) -> None:
    """A server that asks for TLS, and then says nothing, does not keep a process from its end."""

    async def ask_for_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "silent", "tls_required": true, "max_payload": 1024}\r\n')
        await reader.read()
        writer.close()

    server = await asyncio.start_server(ask_for_tls, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        await refusal(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", files.ca)


async def test_a_certificate_of_the_process(files: Files) -> None:
    """A broker that asks for a certificate says whether there is none, or one that it does not accept."""
    with Broker(extra=files.server_lines("verify: true")) as broker:
        assert "asks for a certificate of this process" in await refusal(broker.url, files.ca)
        trusted = files.authority.certificate
        files.renew()
        files.issue("client", ())
        (files.folder / "ca.pem").write_bytes(trusted)
        assert "does not accept the certificate of this process" in await refusal(broker.url, files.client)


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_broker_without_tls(files: Files, *, is_named: bool) -> None:
    """With an authority, or a URL that asks for TLS, no process goes on in plain text; it would send its login."""
    with Broker() as broker:
        url = broker.url if is_named else broker.url.replace("nats:", "tls:")
        text = await refusal(url, files.ca if is_named else BrokerCredentials())
    assert "does not speak TLS, and this process must not go on without: configure TLS there" in text


@pytest.mark.parametrize("damaged", ["ca.pem", "client.pem", "client.key"])
async def test_files_that_are_none(files: Files, damaged: str) -> None:
    """A file that holds something else ends a start at once, and its name is in the error."""
    (files.folder / damaged).write_text("nothing")
    with pytest.raises(InvalidCredentials, match=rf"{damaged}.* can't be used .*: name .* in PEM"):
        await connect(["nats://127.0.0.1:1"], "test", connect_timeout=60, credentials=files.client)


async def test_a_key_of_a_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file with a seed logs in. It is read at each connect: after the key was replaced on both sides the process
    connects again."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = tmp_path / "api.nk"
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    users = ", ".join(f"{{ nkey: {public_key(key)} }}" for key in keys)
    path.write_text(f"# a comment\n{seed_of(keys[0])}\n")
    credentials = BrokerCredentials(nkey=str(path))
    with Broker(extra=f"authorization {{ users: [ {users} ] }}") as broker, caplog.at_level(logging.INFO):
        connection = await connect([broker.url], "test", connect_timeout=10, credentials=credentials)
        broker.kill()
        path.write_text("nothing\n")
        broker.start()
        await eventually(lambda: "is no file with the seed of a user" in str(connection.nc.last_error))
        path.write_text(f"{seed_of(keys[1])}\n")
        await eventually(lambda: connection.is_connected)
        assert read_seed(path) is not None
        await connection.close()
    assert seed_of(keys[0]) not in caplog.text + str(connection.nc.last_error)
    assert "refuses the login" in await _refused_key(tmp_path)


async def _refused_key(folder: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / "unknown.nk"
    path.write_text(seed_of(Ed25519PrivateKey.generate()))
    known = public_key(Ed25519PrivateKey.generate())
    with Broker(extra=f"authorization {{ users: [ {{ nkey: {known} }} ] }}") as broker:
        return await refusal(broker.url, BrokerCredentials(nkey=str(path)))
