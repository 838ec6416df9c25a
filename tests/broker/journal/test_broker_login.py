"""A login at a broker that asks for one: what works, what is refused, and that no text shows a secret."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from opstream.events import EventsBroker, InvalidSubscription
from opstream_journal import BrokerUnreachable, connect
from opstream_journal.errors import InvalidCredentials
from opstream_schemas.urls import BrokerCredentials
from tests.support.broker.jwt_login import JwtLogin
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PASSWORD = "s3cret-0815"
USER = f'authorization {{ user: "ada", password: "{PASSWORD}" }}'
TOKEN = f'authorization {{ token: "{PASSWORD}" }}'
LOGIN = BrokerCredentials(user="ada", password=PASSWORD)


@pytest.mark.parametrize(
    ("lines", "credentials"), [(USER, LOGIN), (TOKEN, BrokerCredentials(token=PASSWORD)), ("", LOGIN)]
)
async def test_a_login(lines: str, credentials: BrokerCredentials) -> None:
    """User and password, or a token, log in, also again after a restart; a broker that asks for none takes any."""
    with Broker(extra=lines) as broker:
        link = await connect([broker.url], "test", connect_timeout=10, credentials=credentials)
        broker.kill()
        await eventually(lambda: not link.is_connected)
        broker.start()
        await eventually(lambda: link.is_connected)
        await link.close()


async def test_a_credentials_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file with a JWT and a seed logs in. It is read at each connect: a reconnect waits for one that is damaged."""
    login = JwtLogin()
    path = tmp_path / "user.creds"
    path.write_text(login.credentials)
    with Broker(extra=login.server_lines) as broker, caplog.at_level(logging.INFO):
        link = await connect([broker.url], "test", connect_timeout=10, credentials=BrokerCredentials(file=str(path)))
        broker.kill()
        path.write_text(login.credentials.replace("BEGIN NATS USER JWT", "BEGIN NOTHING"))
        broker.start()
        await eventually(lambda: "is not a credentials file" in str(link.nc.last_error))
        assert not link.is_connected
        path.write_text(login.credentials.replace("\n", "\r\n"))
        await eventually(lambda: link.is_connected)
        await link.close()
    assert login.seed not in caplog.text


@pytest.mark.parametrize("credentials", [BrokerCredentials(), BrokerCredentials(user="ada", password="s3cret-1")])
async def test_a_refused_login(credentials: BrokerCredentials) -> None:
    """The error says that the broker is there and refuses, and where the login is set; it has no part of it."""
    with Broker(extra=USER) as broker, pytest.raises(BrokerUnreachable) as refused:
        await connect([broker.url], "test", connect_timeout=0.5, credentials=credentials)
    assert f"the broker at {broker.url} refuses the login" in str(refused.value)
    assert "OPSTREAM_NATS_PASSWORD" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("damage", [("BEGIN NATS", "BEGIN"), ("BEGIN USER", "BEGIN"), ("SUA", "SUB"), ("-", "\xff")])
async def test_a_file_that_is_none(tmp_path: Path, damage: tuple[str, str]) -> None:
    """A file that lacks a part, or was damaged, is refused at once, and its content is not shown."""
    login = JwtLogin()
    path = tmp_path / "user.creds"
    path.write_text(login.credentials.replace(*damage), encoding="latin-1")
    with pytest.raises(InvalidCredentials) as invalid:
        await connect(["nats://127.0.0.1:1"], "test", connect_timeout=60, credentials=BrokerCredentials(file=str(path)))
    assert "is not a credentials file of NATS: name one" in str(invalid.value)
    assert login.seed[4:20] not in str(invalid.value)


@pytest.mark.parametrize("name", ["missing.creds", "."])
async def test_a_file_that_can_not_be_read(tmp_path: Path, name: str) -> None:
    """The error names the file and the reason."""
    path = tmp_path / name
    with pytest.raises(InvalidCredentials, match=r"can't be read \((No such file or|Is a) directory\): name one"):
        await connect(["nats://127.0.0.1:1"], "test", connect_timeout=60, credentials=BrokerCredentials(file=str(path)))


async def test_an_odd_password_in_a_url() -> None:
    """A password with a special character, after which the URL is none, is not shown by the error."""
    with pytest.raises(BrokerUnreachable) as invalid:
        await connect(["nats://ada:s3cret#x@127.0.0.1:4222"], "test", connect_timeout=1)
    assert "percent-encode" in str(invalid.value)
    assert "s3cret" not in str(invalid.value)


async def test_a_subscriber() -> None:
    """An EventsBroker logs in the same way, and refuses two logins at once."""
    with Broker(extra=USER) as broker:
        variables = {"OPSTREAM_NATS_USER": "ada", "OPSTREAM_NATS_PASSWORD": PASSWORD, "OPSTREAM_NATS_TOKEN": ""}
        events = EventsBroker(broker.url, credentials=BrokerCredentials.from_variables(variables), logger=None)
        await events.start()
        assert events.journal_connection.is_connected
        await events.stop()
    with pytest.raises(InvalidSubscription, match="several logins: leave one"):
        EventsBroker(credentials=BrokerCredentials(user="ada", password="b", token="c"))


def test_texts_have_no_secrets() -> None:
    """Neither the text of credentials nor that of settings that hold them shows a part."""
    credentials = BrokerCredentials(file="f", user="ada", password=PASSWORD, token=PASSWORD)
    assert f"{credentials} {credentials!r} {[credentials]}".count("…") == 3
    assert PASSWORD not in f"{credentials} {credentials!r} {[credentials]}"
