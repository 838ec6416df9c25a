"""Bad luck of webhooks on a real broker: what can't be read, delivered or recorded, and what is gone or old."""

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
from tests.support.webhooks.receiver import Receiver, answer, never
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


def delivery(receiver: Receiver, sequence: int, **changes: Any) -> WebhookDelivery:
    """A delivery of operation `a`, as the fan-out sends it."""
    given = {"operation_id": "a", "begun": utc_now(), **changes}
    shared = {"action": "book:upload-start", "event": "succeeded", "endpoint": "callback", "callback": receiver.url}
    return WebhookDelivery(sequence=sequence, **shared, **given)


async def test_a_removed_endpoint(tmp_path: Path, link: Connection, journal: Journal, receiver: Receiver) -> None:
    """What is on its way to an endpoint that is configured no more waits for it, as for one that does not answer."""
    path = write_hooks(tmp_path, one=receiver.url)
    receiver.answers = [answer(500), answer(204)]
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True), delays=(0.3, 0.3, 0.3)) as hooks:
        text = path.read_text()
        await ended(journal, "a")
        await eventually(lambda: receiver.received)
        path.write_text("")
        hooks.reload()
        await eventually(lambda: are(link, "a", ["retrying", "retrying"]))
        path.write_text(text)
        hooks.reload()
        await eventually(lambda: are(link, "a", ["retrying", "retrying", "delivered"]))
    assert (await records(link))[1].error == "no endpoint 'one' is configured"


async def test_what_is_no_outcome_is_passed_over(
    link: Connection, journal: Journal, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes that are no event, an event under a foreign subject, a type of a newer version: each is told and passed
    over, and what follows is delivered."""
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
    assert "operations.corrupt.book.upload-start.succeeded) is passed over" in caplog.text
    assert "lies under a foreign subject operations.foreign" in caplog.text
    assert "opstream.action.succeeded.v9, unknown to this version" in caplog.text
    assert "of WEBHOOKS is passed over: not a delivery" in caplog.text


@pytest.mark.parametrize("kind", ["corrupt", "newer"])
async def test_a_request_that_can_t_be_read(
    tmp_path: Path, link: Connection, journal: Journal, receiver: Receiver, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """An operation whose request says nothing to this version still has its outcome told to the configured endpoints,
    and the log says that a callback may be missing."""
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
async def test_a_delivery_that_nobody_could_make(
    link: Connection, receiver: Receiver, wrong: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign message of the queue that looks like a delivery is told and passed over, and ends nothing."""
    foreign = msgspec.structs.replace(delivery(receiver, 1), **wrong)
    await link.nc.jetstream().publish("webhooks.due.callback.x", encode_record(foreign))
    async with delivering(link, callbacks(receiver.host)):
        await eventually(lambda: "of WEBHOOKS is passed over" in caplog.text)
    assert await records(link) == []


async def test_another_operation_s_event_is_not_sent(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """Where the journal holds something else at a delivery's sequence, as after a restored backup, or nothing, it is
    given up; bytes that can't be read are tried again, since a newer replica may read them."""
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


async def test_who_was_not_called_has_not_failed(
    tmp_path: Path, link: Connection, journal: Journal, receiver: Receiver
) -> None:
    """A delivery of which the journal has nothing to send says nothing of its receiver, which gets as many at once as
    before."""
    receiver.answers = [never]
    path = write_hooks(tmp_path, good=receiver.url)
    async with delivering(link, ConfigSource(path=path, is_http_allowed=True), seconds=5, delays=(600,)):
        expired = msgspec.structs.replace(delivery(receiver, 1_000), endpoint="good", callback="")
        await DeliveryStore(link).enqueue(expired, "id")
        await eventually(lambda: are(link, "*", [GAVE_UP]))
        for number in range(3):
            await ended(journal, f"op-{number}")
        await eventually(lambda: receiver.open == 3, within=3)


async def test_what_can_t_be_recorded_is_no_flood(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """While the broker takes no records, a delivery is made again and again (nobody knows that it was), but less and
    less often."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.DELIVERIES_STREAM)).config
    await js.update_stream(config=config.evolve(max_bytes=1))
    async with delivering(link, callbacks(receiver.host)):
        await ended(journal, "a", callback=receiver.url)
        await eventually(lambda: len(receiver.received) == 3, within=12)
        first, second, third = (int(one.headers["webhook-timestamp"]) for one in receiver.received)
    assert third - second > second - first


async def test_a_delivery_that_waited_too_long(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """What could not be tried for more than a day is given up without a call, and recorded."""
    await ended(journal, "a")
    late = delivery(receiver, (await journal.events("a"))[-1].sequence, begun=utc_now() - timedelta(hours=27))
    await DeliveryStore(link).enqueue(late, "late")
    async with delivering(link, callbacks(receiver.host)):
        await eventually(lambda: are(link, "a", [GAVE_UP]))
    assert receiver.received == []
    assert (await records(link))[0].error == "not tried any more after 26 hours"


async def test_old_outcomes_are_told_to_nobody(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """A service that is started after more than a day does not flood its receivers with what is long over."""
    await ended(journal, "old", callback=receiver.url)
    async with delivering(link, callbacks(receiver.host), now=lambda: utc_now() + timedelta(hours=25)):
        await settled(link, subjects.WEBHOOKS_CONSUMER)
    assert (receiver.received, await records(link)) == ([], [])


async def test_a_consumer_that_is_made_anew(link: Connection, journal: Journal, receiver: Receiver) -> None:
    """It gives all outcomes of the journal once more; those that were delivered are not delivered again."""
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
    await eventually(is_forgotten)  # and so is what was sent before
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
    """The service ends with a reason when one of its consumers is deleted."""
    tasks = [asyncio.create_task(part.run()) for part in composed(link, ReloadableConfig(callbacks("a.example")))]
    assert await link.nc.jetstream().delete_consumer(stream, consumer)
    (ended_first,), others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await cancel_all(*others)
    with pytest.raises(ConsumerGone, match=f"consumer {consumer} of stream {stream} was deleted"):
        ended_first.result()
