"""Webhooks on a real broker, with receivers on loopback: what is delivered to which receiver, and what is retried."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import timedelta
from pathlib import Path

import pytest

from opstream_journal import Connection, Journal
from opstream_schemas import subjects
from opstream_schemas.events import CONTENT_TYPE
from opstream_webhooks.address_guard import Address
from opstream_webhooks.config import ConfigSource
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.projector.projection import settled
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import OTHER_SECRET, SECRET, WebhookReceiver, answer, never, receiving
from tests.support.webhooks.service import (
    are,
    callbacks,
    delivering,
    ended,
    outcomes,
    records,
    write_hooks,
)

pytestmark = pytest.mark.broker

GAVE_UP = "gave-up"


async def test_a_callback_gets_the_stored_event(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """The body is the event byte for byte, signed for the official library, and the attempt is recorded without the
    query of the URL."""
    async with delivering(link, callbacks(receiver.host)):
        operation = await ended(journal, "a", callback=receiver.url)
        await ended(journal, "without")
        await eventually(lambda: records(link, "a"))
        await settled(link, subjects.WEBHOOKS_CONSUMER)
    (received,) = receiver.received
    (*_, last) = await journal.events("a")
    assert received.body == last.stored
    assert received.path == "/hook?token=abc"
    assert received.headers["content-type"] == CONTENT_TYPE
    assert received.headers["host"] == receiver.host
    assert received.verified()["subject"] == operation.id
    assert received.webhook_id == f"{last.id}_callback"
    (record,) = await records(link)
    assert (record.outcome, record.status, record.attempt, record.webhook_id) == (
        "delivered",
        204,
        1,
        received.webhook_id,
    )
    assert record.url == f"http://{receiver.host}/hook"


async def test_endpoints_of_actions(
    tmp_path: Path, link: Connection, journal: Journal, receiver: WebhookReceiver
) -> None:
    """Each configured endpoint gets the outcomes that it matches, under an id of its own; several get the same one."""
    path = write_hooks(tmp_path, one=receiver.url, two=receiver.url, never=receiver.url)
    path.write_text(path.read_text() + 'actions = ["order:*"]\n')
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True)):
        await ended(journal, "a")
        await eventually(lambda: len(receiver.received) == 2)
        await eventually(lambda: records(link))
    last = (await journal.events("a"))[-1]
    assert {one.webhook_id for one in receiver.received} == {f"{last.id}_one", f"{last.id}_two"}


async def test_secret_rotation(tmp_path: Path, link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """While two secrets are configured, the signature verifies with either; a reload needs no restart, and a broken
    file changes nothing."""
    path = write_hooks(tmp_path, one=receiver.url)
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True)) as config:
        path.write_text(path.read_text().replace(f'["{SECRET}"]', f'["{OTHER_SECRET}", "{SECRET}"]'))
        config.reload()
        await ended(journal, "a")
        await eventually(lambda: receiver.received)
        path.write_text("broken")
        config.reload()
        await ended(journal, "b")
        await eventually(lambda: len(receiver.received) == 2)
    for received in receiver.received:
        assert received.verified(SECRET) == received.verified(OTHER_SECRET)


@pytest.mark.parametrize(
    ("response", "status", "error"),
    [
        (answer(500), 500, "answered 500"),
        (answer(301, "Location: http://127.0.0.1:1/"), 301, "answered 301; redirects are not followed"),
        (answer(302, "Location: http://[::::/"), 302, "answered 302; redirects are not followed"),
        (answer(503, "Retry-After: Tue, 24 Nov 99999999999999999999 11:00:00 GMT"), 503, "answered 503"),
        (answer(400), 400, "answered 400"),
        (never, 0, "no response within 0.3 s"),
    ],
)
async def test_failures_are_retried(
    link: Connection, journal: Journal, receiver: WebhookReceiver, response: object, status: int, error: str
) -> None:
    """Any response but a timely 2xx is a failure: it is recorded with its reason and the next time, and retried under
    the same id until it succeeds."""
    receiver.answers = [response, response, answer(200)]  # type: ignore[list-item]
    async with delivering(link, callbacks(receiver.host), seconds=0.3):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["retrying", "retrying", "delivered"]))
    assert len({one.webhook_id for one in receiver.received}) == 1
    first, second, third = await records(link)
    assert (first.status, first.error, first.attempt, second.attempt, third.attempt) == (status, error, 1, 2, 3)
    assert first.next_at is not None
    assert first.next_at <= second.at
    assert third.next_at is None


async def test_giving_up(
    link: Connection, journal: Journal, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """After the last attempt the delivery is given up; that is recorded and logged."""
    receiver.answers = [answer(503)]
    async with delivering(link, callbacks(receiver.host), delays=(0.1, 0.1)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["retrying", "retrying", GAVE_UP]))
    assert "gave up delivering the end of operation a (succeeded) to callback" in caplog.text
    assert "token=abc" not in caplog.text


async def test_gone(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """410 Gone ends a delivery at once."""
    receiver.answers = [answer(410)]
    async with delivering(link, callbacks(receiver.host)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", [GAVE_UP]))


async def test_retry_after(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """The next attempt waits for the receiver's `Retry-After`."""
    receiver.answers = [answer(429, "Retry-After: 2"), answer(204)]
    async with delivering(link, callbacks(receiver.host), delays=(0.01,)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["retrying", "delivered"]))
    first, second = await records(link)
    assert second.at - first.at >= timedelta(seconds=2)


async def test_a_dripping_response(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """The timeout limits a whole attempt, however often a receiver sends a byte of its head."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(200):
            writer.write(b"X-Drip: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    receiver.answers = [drip]
    async with delivering(link, callbacks(receiver.host), seconds=0.3, delays=()):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", [GAVE_UP]))
    (record,) = await records(link)
    assert record.error == "no response within 0.3 s"
    assert record.duration < 2


async def test_a_huge_response(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """Only a little of a response is read; its status says that the delivery succeeded."""
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    receiver.answers = [flood]
    async with delivering(link, callbacks(receiver.host)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["delivered"]))
        await eventually(lambda: receiver.open == 0)
    assert sent < 50_000_000


async def test_private_addresses_are_refused(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """A host that resolves to a private address is not called, unless the operator allows that network."""
    async with delivering(link, callbacks(receiver.host), delays=(), allowed=()):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", [GAVE_UP]))
    (record,) = await records(link)
    assert "127.0.0.1, which is not on the public internet" in record.error
    assert receiver.received == []


async def test_a_name_is_resolved_once(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """The connection goes to the first permitted address that was resolved: a name that resolves differently the second
    time (DNS rebinding) gains nothing."""
    resolved = []

    async def rebind(host: str) -> list[Address]:
        resolved.append(host)
        good, bad = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.0.0.1")
        return [bad, good] if len(resolved) == 1 else [bad]

    name = f"hooks.example.org:{receiver.port}"
    async with delivering(link, callbacks(name), resolve=rebind, delays=(0.1,)):
        await ended(journal, "a", callback=f"http://{name}/x")
        await eventually(lambda: are(link, "a", ["delivered"]))
        await ended(journal, "b", callback=f"http://{name}/x")
        await eventually(lambda: are(link, "b", ["retrying", GAVE_UP]))
    (received,) = receiver.received
    assert received.headers["host"] == name
    assert resolved == ["hooks.example.org"] * 3


async def test_a_dead_receiver_delays_no_other(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """However many deliveries wait for a receiver that never responds, another one gets its delivery at once; the dead
    one gets few attempts at a time."""
    async with receiving() as dead:
        dead.answers = [answer(204), never]
        async with delivering(link, callbacks(dead.host, receiver.host), seconds=5):
            for number in range(60):
                await ended(journal, f"dead-{number}", callback=dead.url)
            await eventually(lambda: dead.open)
            await ended(journal, "a", callback=receiver.url)
            await eventually(lambda: receiver.received, within=3)
            assert dead.most_open <= 8


async def test_endpoints_of_one_host(
    tmp_path: Path, link: Connection, journal: Journal, receiver: WebhookReceiver
) -> None:
    """Two endpoints behind one gateway are two receivers: a dead one takes no slot of the other."""

    async def by_path(writer: asyncio.StreamWriter) -> None:
        await (never if receiver.received[-1].path == "/dead" else answer(204))(writer)

    receiver.answers = [by_path]
    path = write_hooks(tmp_path, dead=f"http://{receiver.host}/dead", good=f"http://{receiver.host}/good")
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True), seconds=2, delays=(600,)):
        for number in range(20):
            await ended(journal, f"op-{number}")
        await eventually(lambda: sum(one.path == "/good" for one in receiver.received) == 20)
        assert "retrying" not in await outcomes(link)


async def test_replicas_share(broker: Broker, link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """Two replicas share the deliveries: without failures each is made once."""
    source = callbacks(receiver.host)
    async with linked(broker.url) as other, delivering(link, source), delivering(other, source):
        for number in range(40):
            await ended(journal, f"op-{number}", callback=receiver.url)
        await eventually(lambda: len(receiver.received) == 40)
        await eventually(lambda: are(link, "*", ["delivered"] * 40))
    assert len({one.webhook_id for one in receiver.received}) == 40
