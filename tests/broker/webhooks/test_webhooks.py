"""Webhooks on a real broker, with receivers on loopback: who is told, what comes, what happens if it does not."""

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
from tests.support.webhooks.receiver import OTHER_SECRET, SECRET, Receiver, answer, never, receiving
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


async def test_a_callback_gets_the_stored_event(link: Connection, journal: Journal, receiver: Receiver) -> None:
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


async def test_endpoints_of_actions(tmp_path: Path, link: Connection, journal: Journal, receiver: Receiver) -> None:
    """A configured endpoint is told of what it wants, under an id of its own; several are told side by side."""
    path = write_hooks(tmp_path, one=receiver.url, two=receiver.url, never=receiver.url)
    path.write_text(path.read_text() + 'actions = ["order:*"]\n')
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True)):
        await ended(journal, "a")
        await eventually(lambda: len(receiver.received) == 2)
        await eventually(lambda: records(link))
    last = (await journal.events("a"))[-1]
    assert {one.webhook_id for one in receiver.received} == {f"{last.id}_one", f"{last.id}_two"}


async def test_secrets_change_over(tmp_path: Path, link: Connection, journal: Journal, receiver: Receiver) -> None:
    """While two secrets are configured, receivers of either find the signature right; a reload needs no restart, and
    a file that is broken changes nothing."""
    path = write_hooks(tmp_path, one=receiver.url)
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True)) as hooks:
        path.write_text(path.read_text().replace(f'["{SECRET}"]', f'["{OTHER_SECRET}", "{SECRET}"]'))
        hooks.reload()
        await ended(journal, "a")
        await eventually(lambda: receiver.received)
        path.write_text("broken")
        hooks.reload()
        await ended(journal, "b")
        await eventually(lambda: len(receiver.received) == 2)
    for received in receiver.received:
        assert received.verified(SECRET) == received.verified(OTHER_SECRET)


@pytest.mark.parametrize(
    ("told", "status", "error"),
    [
        (answer(500), 500, "answered 500"),
        (answer(301, "Location: http://127.0.0.1:1/"), 301, "answered 301; redirects are not followed"),
        (answer(302, "Location: http://[::::/"), 302, "answered 302; redirects are not followed"),
        (answer(503, "Retry-After: Tue, 24 Nov 99999999999999999999 11:00:00 GMT"), 503, "answered 503"),
        (answer(400), 400, "answered 400"),
        (never, 0, "no answer within 0.3 s"),
    ],
)
async def test_failures_are_tried_again(
    link: Connection, journal: Journal, receiver: Receiver, told: object, status: int, error: str
) -> None:
    """Whatever is no 2xx in time is a failure: recorded with its reason and what follows, and made again under the
    same id, until it succeeds."""
    receiver.answers = [told, told, answer(200)]  # type: ignore[list-item]
    async with delivering(link, callbacks(receiver.host), seconds=0.3):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["retrying", "retrying", "delivered"]))
    assert len({one.webhook_id for one in receiver.received}) == 1
    first, second, third = await records(link)
    assert (first.status, first.error, first.attempt, second.attempt, third.attempt) == (status, error, 1, 2, 3)
    assert first.next_at is not None
    assert first.next_at <= second.at
    assert third.next_at is None


async def test_it_ends(
    link: Connection, journal: Journal, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """When no attempt is left, the delivery is given up: recorded and told."""
    receiver.answers = [answer(503)]
    async with delivering(link, callbacks(receiver.host), delays=(0.1, 0.1)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["retrying", "retrying", GAVE_UP]))
    assert "gave up delivering the end of operation a (succeeded) to callback" in caplog.text
    assert "token=abc" not in caplog.text


async def test_gone(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """410 Gone ends a delivery at once."""
    receiver.answers = [answer(410)]
    async with delivering(link, callbacks(receiver.host)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", [GAVE_UP]))


async def test_retry_after(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """A receiver that asks for time gets it."""
    receiver.answers = [answer(429, "Retry-After: 2"), answer(204)]
    async with delivering(link, callbacks(receiver.host), delays=(0.01,)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", ["retrying", "delivered"]))
    first, second = await records(link)
    assert second.at - first.at >= timedelta(seconds=2)


async def test_a_dripping_answer(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """The time counts for an attempt as a whole, however often a receiver sends a byte of its head."""

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
    assert record.error == "no answer within 0.3 s"
    assert record.duration < 2


async def test_a_huge_answer(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """Of an answer no more is read than a little; the status says that it was delivered."""
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


async def test_private_addresses_are_refused(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """A host that resolves to an address of the inside is not called, unless the operator allows that network."""
    async with delivering(link, callbacks(receiver.host), delays=(), allowed=()):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: are(link, "a", [GAVE_UP]))
    (record,) = await records(link)
    assert "127.0.0.1, which is not of the public internet" in record.error
    assert receiver.received == []


async def test_a_name_is_resolved_once(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """The connection goes to the very address that was looked at, the first that passes: a name that answers otherwise
    the second time gains nothing."""
    asked = []

    async def rebind(host: str) -> list[Address]:
        asked.append(host)
        good, bad = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.0.0.1")
        return [bad, good] if len(asked) == 1 else [bad]

    name = f"hooks.example.org:{receiver.port}"
    async with delivering(link, callbacks(name), resolve=rebind, delays=(0.1,)):
        await ended(journal, "a", callback=f"http://{name}/x")
        await eventually(lambda: are(link, "a", ["delivered"]))
        await ended(journal, "b", callback=f"http://{name}/x")
        await eventually(lambda: are(link, "b", ["retrying", GAVE_UP]))
    (received,) = receiver.received
    assert received.headers["host"] == name
    assert asked == ["hooks.example.org"] * 3


async def test_a_dead_receiver_keeps_nobody_waiting(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """However much is to be told to a receiver that never answers, another one is told at once; and the dead one gets
    few attempts at a time."""
    async with receiving() as dead:
        dead.answers = [answer(204), never]
        async with delivering(link, callbacks(dead.host, receiver.host), seconds=5):
            for number in range(60):
                await ended(journal, f"dead-{number}", callback=dead.url)
            await eventually(lambda: dead.open)
            await ended(journal, "a", callback=receiver.url)
            await eventually(lambda: receiver.received, within=3)
            assert dead.most_open <= 8


async def test_endpoints_of_one_host(tmp_path: Path, link: Connection, journal: Journal, receiver: Receiver) -> None:
    """Two endpoints behind one gateway are two receivers: one that never answers takes no turn of the other."""

    async def by_path(writer: asyncio.StreamWriter) -> None:
        await (never if receiver.received[-1].path == "/dead" else answer(204))(writer)

    receiver.answers = [by_path]
    path = write_hooks(tmp_path, dead=f"http://{receiver.host}/dead", good=f"http://{receiver.host}/good")
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True), seconds=2, delays=(600,)):
        for number in range(20):
            await ended(journal, f"op-{number}")
        await eventually(lambda: sum(one.path == "/good" for one in receiver.received) == 20)
        assert "retrying" not in await outcomes(link)


async def test_replicas_share(broker: Broker, link: Connection, journal: Journal, receiver: Receiver) -> None:
    """Two replicas tell everything once between them while nothing goes wrong."""
    source = callbacks(receiver.host)
    async with linked(broker.url) as other, delivering(link, source), delivering(other, source):
        for number in range(40):
            await ended(journal, f"op-{number}", callback=receiver.url)
        await eventually(lambda: len(receiver.received) == 40)
        await eventually(lambda: are(link, "*", ["delivered"] * 40))
    assert len({one.webhook_id for one in receiver.received}) == 40
