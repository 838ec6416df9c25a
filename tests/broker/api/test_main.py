"""The API's process: the reasons why it does not start, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import pytest

from opstream_api.main import connected_api, run
from opstream_api.settings import Settings
from opstream_journal import BrokerUnreachable, Connection, Drifted, JournalError, NotProvisioned, announce_action
from opstream_journal.journal import Journal
from opstream_schemas import subjects
from tests.support.api.service import post, read_reply, spec
from tests.support.broker.server import Broker, free_port

pytestmark = pytest.mark.broker

PROGRAM: Final = """
import sys
from opstream_api.main import run
from opstream_api.settings import Settings
run(Settings(servers=(sys.argv[1],), port=int(sys.argv[2])))
"""
VALID: Final = b'{"title":"x"}'


@asynccontextmanager
async def process(url: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of a service, killed at the end of the test."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, str(port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a service that is starting."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)


async def refused(port: int) -> None:
    """Wait until the service accepts no new connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()


def test_a_port_in_use_names_the_option() -> None:
    """The port is checked first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(JournalError, match=rf"{port}.*--port"):
            run(Settings(servers=("nats://127.0.0.1:1",), port=port))


def test_an_unreachable_broker() -> None:
    """It ends after the connect timeout."""
    with pytest.raises(BrokerUnreachable, match="--nats"):
        run(Settings(servers=(f"nats://127.0.0.1:{free_port()}",), port=0, connect_timeout=0.2))


def test_a_broker_that_was_not_provisioned(broker: Broker) -> None:
    """The message names the command to run."""
    with pytest.raises(NotProvisioned, match="opstream provision"):
        run(Settings(servers=(broker.url,), port=0, connect_timeout=5))


async def test_a_journal_too_small_for_the_bodies(broker: Broker, link: Connection) -> None:
    """Otherwise every large body would fail later."""
    settings = Settings(servers=(broker.url,), port=0, connect_timeout=5)
    js = link.nc.jetstream()
    await js.update_stream((await js.stream_info(subjects.OPERATIONS_STREAM)).config.evolve(max_msg_size=200_000))
    with pytest.raises(Drifted, match=r"provision --max-msg-size 278528 --update.*--max-body"):
        async with connected_api(settings):
            raise AssertionError("it started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_open_requests_finish(broker: Broker, link: Connection, journal: Journal, number: signal.Signals) -> None:
    """After a signal there are no new connections; open requests get their responses, then the process ends cleanly."""
    await announce_action(link, spec())
    port = free_port()
    async with process(broker.url, port) as child, asyncio.timeout(20):
        reader, writer = await connected(port)
        sent = post("/book:upload-start", VALID, "Operation-Id: last", "Expect: 100-continue", host="127.0.0.1")
        head, _, body = sent.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")  # "100 Continue": the request is being served
        child.send_signal(number)
        await refused(port)
        writer.write(body)
        reply = await read_reply(reader)
        writer.close()
        assert reply.status == HTTPStatus.ACCEPTED
        _, errors = await child.communicate()
        assert (child.returncode, errors) == (0, b"")
    assert len(await journal.events("last")) == 1


async def test_a_signal_before_the_broker_is_reachable() -> None:
    """It ends the wait at once."""
    async with process(f"nats://127.0.0.1:{free_port()}", port := free_port()) as child, asyncio.timeout(20):
        _, writer = await connected(port)
        writer.close()
        child.terminate()
        _, errors = await child.communicate()
        assert (child.returncode, errors) == (0, b"")
