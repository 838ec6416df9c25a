"""Webhooks on a real broker when messages can't be read, attempts can't be recorded, or things are gone or old."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, ConsumerGone, Journal
from opstream_journal.provisioning.webhook_topology import webhook_consumers
from opstream_journal.runtime.service import cancel_all
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.webhook_delivery import WebhookDelivery, encode_record
from opstream_webhooks.config import ConfigSource, ReloadableConfig
from tests.support.projector.projection import settled
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import WebhookReceiver, answer, never
from tests.support.webhooks.service import (
    are,
    callbacks,
    composed,
    delivering,
    ended,
    records,
    utc_now,
    write_hooks,
)

pytestmark = pytest.mark.broker

GAVE_UP = "gave-up"


def delivery(receiver: WebhookReceiver, sequence: int, **changes: Any) -> WebhookDelivery:
    """A delivery of operation `a`, as the fan-out creates it."""
    given = {"operation_id": "a", "begun": utc_now(), **changes}
    shared = {"action": "book:upload-start", "event": "succeeded", "endpoint": "callback", "callback": receiver.url}
    return WebhookDelivery(sequence=sequence, **shared, **given)


async def test_a_removed_endpoint(
    tmp_path: Path, link: Connection, journal: Journal, receiver: WebhookReceiver
) -> None:
    """A delivery to an endpoint that was removed is retried, as for one that does not respond."""
    path = write_hooks(tmp_path, one=receiver.url)
    receiver.answers = [answer(500), answer(204)]
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True), delays=(0.3, 0.3, 0.3)) as config:
        text = path.read_text()
        await ended(journal, "a")
        await eventually(lambda: receiver.received)
        path.write_text("")
        config.reload()
        await eventually(lambda: are(link, "a", ["retrying", "retrying"]))
        path.write_text(text)
        config.reload()
        await eventually(lambda: are(link, "a", ["retrying", "retrying", "delivered"]))
    assert (await records(link))[1].error == "no endpoint 'one' is configured"


async def test_foreign_messages_are_skipped(
    link: Connection, journal: Journal, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes that are no event, an event under a foreign subject, a type of a newer version: each is logged and skipped,
    and later outcomes are delivered."""
    await ended(journal, "a", callback=receiver.url)
    event = (await journal.events("a"))[-1].stored
    newer = event.replace(b"succeeded.v1", b"succeeded.v9").replace(b'"subject":"a"', b'"subject":"newer"')
    js = link.nc.jetstream()
    for operation_id, body in (("corrupt", b"\xff{"), ("foreign", event), ("newer", newer)):
        await js.publish(f"operations.{operation_id}.book.upload-start.succeeded", body)
    await js.publish("webhooks.due.callback.x", b"no delivery")
    await ended(journal, "b", callback=receiver.url)
    async with delivering(link, callbacks(receiver.host)):
        await eventually(lambda: len(receiver.received) == 2)
        await settled(link, subjects.WEBHOOKS_CONSUMER)
        await eventually(lambda: are(link, "b", ["delivered"]))
    assert {one.verified()["subject"] for one in receiver.received} == {"a", "b"}
    assert "operations.corrupt.book.upload-start.succeeded) is skipped" in caplog.text
    assert "lies under a foreign subject operations.foreign" in caplog.text
    assert "opstream.action.succeeded.v9, unknown to this version" in caplog.text
    assert "of WEBHOOKS is skipped: not a delivery" in caplog.text


@pytest.mark.parametrize("kind", ["corrupt", "newer"])
async def test_an_unreadable_request(
    tmp_path: Path,
    link: Connection,
    journal: Journal,
    receiver: WebhookReceiver,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """If this version can't read an operation's request, configured endpoints still get the outcome, and the log says
    that a callback may be missing."""
    await ended(journal, "a", callback=receiver.url)
    stored = [
        one.stored.replace(b'"subject":"a"', b'"subject":"x"').replace(one.id.encode(), b"of-x")
        for one in await journal.events("a")
    ]
    request = b"\xff{" if kind == "corrupt" else stored[0].replace(b"requested.v1", b"requested.v9")
    path = write_hooks(tmp_path, one=receiver.url)
    source = msgspec.structs.replace(callbacks(receiver.host), path=path)
    async with delivering(link, source):
        for event, body in (("requested", request), ("succeeded", stored[-1])):
            await link.nc.jetstream().publish(f"operations.x.book.upload-start.{event}", body)
        await eventually(lambda: are(link, "x", ["delivered"]))
    assert [one.webhook_id.rpartition("_")[2] for one in receiver.of("x")] == ["one"]
    assert "if x has a callback, it is not called" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation_id": "a b"},
        {"endpoint": "a.b"},
        {"action": "none"},
        {"event": "started"},
        {"sequence": 0},
        {"attempt": -50},
    ],
)
async def test_an_invalid_delivery(
    link: Connection, receiver: WebhookReceiver, wrong: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign message that looks like a delivery is logged and skipped, and does not end the service."""
    foreign = msgspec.structs.replace(delivery(receiver, 1), **wrong)
    await link.nc.jetstream().publish("webhooks.due.callback.x", encode_record(foreign))
    async with delivering(link, callbacks(receiver.host)):
        await eventually(lambda: "of WEBHOOKS is skipped" in caplog.text)
    assert await records(link) == []


async def test_a_foreign_event_is_not_sent(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """If the journal has another event at a delivery's sequence (after a restored backup), or none, the delivery is
    given up; unreadable bytes are retried, because a newer replica may read them."""
    await ended(journal, "other")
    sequence = (await journal.events("other"))[-1].sequence
    corrupt = (await link.nc.jetstream().publish("operations.x.book.up.succeeded", b"\xff{")).seq
    deliveries = DeliveryStore(link)
    for number, at in enumerate((sequence, 1_000, corrupt)):
        await deliveries.enqueue(delivery(receiver, at, operation_id=f"op-{number}"), f"id-{number}")
    async with delivering(link, callbacks(receiver.host), delays=(600,)):
        await eventually(lambda: are(link, "*", [GAVE_UP, GAVE_UP, "retrying"], is_sorted=True))
    assert receiver.received == []
    errors = {one.operation_id: one.error for one in await records(link)}
    assert errors["op-0"] == f"sequence {sequence} of the journal is another event"
    assert errors["op-1"] == "the event has expired"
    assert "is not an opstream event" in errors["op-2"]


async def test_no_call_is_no_failure(
    tmp_path: Path, link: Connection, journal: Journal, receiver: WebhookReceiver
) -> None:
    """A delivery without an event to send does not make its receiver count as failing."""
    receiver.answers = [never]
    path = write_hooks(tmp_path, good=receiver.url)
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True), seconds=5, delays=(600,)):
        expired = msgspec.structs.replace(delivery(receiver, 1_000), endpoint="good", callback="")
        await DeliveryStore(link).enqueue(expired, "id")
        await eventually(lambda: are(link, "*", [GAVE_UP]))
        for number in range(3):
            await ended(journal, f"op-{number}")
        await eventually(lambda: receiver.open == 3, within=3)


async def test_unrecorded_attempts_slow_down(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """While the broker stores no records, an attempt counts as not made and is repeated, but less and less often."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.DELIVERIES_STREAM)).config
    await js.update_stream(config=config.evolve(max_bytes=1))
    async with delivering(link, callbacks(receiver.host)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: len(receiver.received) == 3, within=12)
        first, second, third = (int(one.headers["webhook-timestamp"]) for one in receiver.received)
    assert third - second > second - first


async def test_a_delivery_that_waited_too_long(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """A delivery that could not be attempted for more than a day is given up without a call, and recorded."""
    await ended(journal, "a")
    late = delivery(receiver, (await journal.events("a"))[-1].sequence, begun=utc_now() - timedelta(hours=27))
    await DeliveryStore(link).enqueue(late, "late")
    async with delivering(link, callbacks(receiver.host)):
        await eventually(lambda: are(link, "a", [GAVE_UP]))
    assert receiver.received == []
    assert (await records(link))[0].error == "not attempted after 26 hours"


async def test_old_outcomes_are_not_delivered(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """A service that starts after more than a day does not flood its receivers with old outcomes."""
    await ended(journal, "old", callback=receiver.url)
    async with delivering(link, callbacks(receiver.host), now=lambda: utc_now() + timedelta(hours=25)):
        await settled(link, subjects.WEBHOOKS_CONSUMER)
    assert (receiver.received, await records(link)) == ([], [])


async def test_a_recreated_consumer(link: Connection, journal: Journal, receiver: WebhookReceiver) -> None:
    """It delivers all outcomes of the journal again; receivers do not get again what succeeded."""
    js = link.nc.jetstream()
    queue = (await js.stream_info(subjects.WEBHOOKS_STREAM)).config
    await js.update_stream(config=queue.evolve(duplicate_window=0.1))
    receiver.answers = [answer(204), answer(410), answer(204)]
    async with delivering(link, callbacks(receiver.host)):
        for number, outcome in enumerate(("delivered", GAVE_UP)):
            await ended(journal, f"op-{number}", callback=receiver.url)
            await eventually(partial(are, link, f"op-{number}", [outcome]))

    async def is_forgotten() -> bool:
        return not (await js.publish("webhooks.later.x.x", headers={"Nats-Msg-Id": "x"})).duplicate

    assert await is_forgotten()
    await eventually(is_forgotten)  # the broker has also forgotten what was sent before
    await js.delete_consumer(subjects.OPERATIONS_STREAM, subjects.WEBHOOKS_CONSUMER)
    ((stream, durable), _) = webhook_consumers()
    await js.add_consumer(stream, durable)
    async with delivering(link, callbacks(receiver.host), now=lambda: utc_now() + timedelta(minutes=1)):
        await eventually(lambda: are(link, "op-1", [GAVE_UP, "delivered"]))
        await settled(link, subjects.WEBHOOKS_CONSUMER)
    assert [len(receiver.of(f"op-{number}")) for number in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("stream", "consumer"),
    [
        (subjects.OPERATIONS_STREAM, subjects.WEBHOOKS_CONSUMER),
        (subjects.WEBHOOKS_STREAM, subjects.WEBHOOKS_DUE_CONSUMER),
    ],
)
async def test_a_deleted_consumer_ends_it(link: Connection, stream: str, consumer: str) -> None:
    """The service ends, with a reason, when one of its consumers is deleted."""
    tasks = [asyncio.create_task(loop.run()) for loop in composed(link, ReloadableConfig(callbacks("a.example")))]
    assert await link.nc.jetstream().delete_consumer(stream, consumer)
    (ended_first,), others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await cancel_all(*others)
    with pytest.raises(ConsumerGone, match=f"consumer {consumer} of stream {stream} was deleted"):
        ended_first.result()
