"""Subscribers during failures: no event is lost, no loop spins, and an event that can't be handled is parked."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from faststream import FastStream
from faststream.exceptions import RejectMessage, StopApplication, StopConsume
from nats.aio.msg import Msg

from opstream.events import ActionSucceeded, Backoff, Event, EventsBroker, subscribe
from opstream_journal import Connection, Journal, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores import dead_letters as parking
from opstream_schemas import subjects
from opstream_schemas.events import encode_event
from tests.support.broker.server import Broker
from tests.support.events.subscribers import (
    SUCCEEDED,
    KeptEvents,
    consumer_info,
    delete_consumer,
    ended,
    events_broker,
    inject,
    opened,
    running,
    unsettled,
)
from tests.support.journal.journals import KIND, following, linked
from tests.support.journal.journals import opened as journal_on
from tests.support.schemas.histories import FromTheFuture
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

QUICK = Backoff(first=0.05, longest=0.1, deliveries=3)


async def settled(link: Connection, durable: str) -> None:
    """Wait until all events of a durable are settled."""

    async def is_done() -> bool:
        return await unsettled(link, durable) == 0

    await eventually(is_done, within=15)


def stopping(kept: KeptEvents, reason: type[BaseException]) -> Callable[[Event], Awaitable[None]]:
    """A handler that raises."""

    async def handle(event: Event) -> None:
        await kept.keep(event)
        raise reason

    return handle


async def pulled(link: Connection, durable: str) -> Msg:
    """Pull one message of a durable, as another process would."""
    inbox = link.nc.new_inbox()
    subscription = await link.nc.subscribe(inbox, max_msgs=1)
    await link.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.OPERATIONS.{durable}", b'{"batch": 1}', reply=inbox)
    return await subscription.next_msg(5)


async def has_redelivered(link: Connection, durable: str, sequence: int) -> bool:
    """Return True if a recreated durable has delivered up to a sequence."""
    info = await rpc.call(link, f"$JS.API.CONSUMER.INFO.OPERATIONS.{durable}")
    answer = msgspec.json.decode(info.data)
    return "error" not in answer and bool(answer["delivered"]["stream_seq"] >= sequence and answer["num_ack_pending"])


async def ask(link: Connection, durable: str, sequence: int) -> str:
    """Retry a parked event."""
    return (
        await rpc.call(link, subjects.dead_letter_retry_subject(durable), str(sequence).encode(), timeout=5)
    ).data.decode()


class Lines(logging.Handler):
    """The records that FastStream logs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


async def test_one_traceback_for_each_message(broker: Broker, link: Connection, journal: Journal) -> None:
    """A handler that raised has not "processed" its event. Its first failure has a traceback, the others do not."""
    lines, logger = Lines(), logging.getLogger("tests.subscriber")
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    events, kept = events_broker(broker, logger=logger), KeptEvents()

    @subscribe(events, str(KIND), durable="poisoned", backoff=QUICK)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        if event.operation_id.startswith("bad"):
            raise ValueError("no ink") if len(kept.events) < 3 else LookupError("no paper")

    try:
        async with running(events):
            await ended(journal, "bad")
            await kept.reach(3)
            await settled(link, "poisoned")
            await ended(journal, "good")
            await kept.reach(4)
            await settled(link, "poisoned")
    finally:
        logger.removeHandler(lines)
    told = [one.getMessage() for one in lines.records]
    assert told.count("Received") == 4
    assert told.count("Processed") == 1
    shown = [one for one in lines.records if one.exc_info]
    assert [one.getMessage() for one in shown] == ["ValueError: no ink", "LookupError: no paper"]


async def test_poison_is_parked_and_brought_back(broker: Broker, link: Connection, journal: Journal) -> None:
    """An event whose handler fails too often is parked with the reason, and removed when a retry succeeds."""
    events, kept = events_broker(broker), KeptEvents()
    is_broken = True

    @subscribe(events, "*", durable="printer", start="all", backoff=QUICK)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        if is_broken and event.operation_id == "one":
            raise OSError("out of\npaper \u2603")

    one = await ended(journal, "one")
    await ended(journal, "two")
    async with running(events):
        await kept.reach(4)
        await settled(link, "printer")
        ((_, sequence),) = await parking.keys(link, "printer")
        parked = await parking.find(link, "printer", sequence)
        assert parked is not None
        assert (parked.sequence, parked.subject) == (
            one.stream_sequence,
            "operations.one.book.upload-start.succeeded",
        )
        assert (parked.reason, parked.deliveries) == ("HandlerFailed", 3)
        assert parked.detail == "OSError: out of paper \\u2603"
        assert parked.data == kept.events[0].stored
        assert await ask(link, "printer", sequence) == (
            "failed: it stays parked: HandlerFailed: OSError: out of paper \u2603"
        )
        assert await parking.keys(link) == [("printer", sequence)]
        is_broken = False
        assert await ask(link, "printer", sequence) == "done"
        assert await parking.keys(link) == []
        assert await ask(link, "printer", sequence) == f"nothing of printer is parked under {sequence}"
    assert kept.ids.count("one") == 5
    assert {event.sequence for event in kept.events if event.operation_id == "one"} == {sequence}


async def test_what_can_not_be_read_is_parked(broker: Broker, link: Connection, journal: Journal) -> None:
    """Invalid bytes, an event of another operation and an unknown type are parked; later events are delivered."""
    events, kept = events_broker(broker), KeptEvents()
    subscribe(events, "*", durable="reader", events="*", start="all")(kept.keep)
    opened_one = await opened(journal, "one")
    garbage = await inject(link, "operations.two.book.upload-start.succeeded", b"\xff{not json")
    foreign = await inject(
        link, "operations.three.book.upload-start.succeeded", encode_event(following(opened_one, SUCCEEDED))
    )
    wrong = await inject(
        link, "operations.one.book.upload-start.failed", encode_event(following(opened_one, SUCCEEDED))
    )
    newer = await inject(
        link, "operations.one.book.upload-start.progressed", encode_event(following(opened_one, FromTheFuture()))
    )
    await ended(journal, "four")
    async with running(events):
        await kept.reach(5)
        await settled(link, "reader")
    found = {one: await parking.find(link, "reader", one) for _, one in await parking.keys(link, "reader")}
    assert {one: parked and parked.reason for one, parked in found.items()} == {
        garbage: "Undecodable",
        foreign: "Foreign",
        wrong: "Foreign",
        newer: "UnknownType",
    }
    assert [one.name for one in kept.events] == ["requested", "started", "requested", "started", "succeeded"]
    parked = found[newer]
    assert parked is not None
    assert (parked.deliveries, parked.content_type) == (1, "text/plain")
    assert "opstream.action.paused.v1" in parked.detail


async def test_no_retry_helps(broker: Broker, link: Connection, journal: Journal) -> None:
    """A result of another type, and an event that the handler rejects, are parked at once."""
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, "*", durable="strict", start="all")
    async def handle(event: Event) -> None:
        await kept.keep(event)
        if isinstance(event, ActionSucceeded) and event.operation_id == "one":
            event.result_as(list[int])
        raise RejectMessage

    await ended(journal, "one")
    await ended(journal, "two")
    async with running(events):
        await kept.reach(2)
        await settled(link, "strict")
    found = [await parking.find(link, "strict", one) for _, one in await parking.keys(link, "strict")]
    assert [one and one.reason for one in found] == ["UnexpectedShape", "Rejected"]
    assert kept.ids == ["one", "two"]


async def test_a_handler_that_takes_the_process_with_it(broker: Broker, link: Connection, journal: Journal) -> None:
    """An event that was delivered too often and never settled is parked without being handled."""
    events, kept = events_broker(broker), KeptEvents()
    subscribe(events, "*", durable="crasher", start="all", backoff=QUICK)(kept.keep)
    async with running(events):
        pass
    await ended(journal, "one")
    for _ in range(QUICK.deliveries):
        # The state that a killed process leaves, without the wait for `ack_wait`.
        await (await pulled(link, "crasher")).nak()
    async with running(events):
        await settled(link, "crasher")
    ((_, sequence),) = await parking.keys(link, "crasher")
    parked = await parking.find(link, "crasher", sequence)
    assert parked is not None
    assert (parked.reason, parked.deliveries, kept.ids) == ("NeverFinished", 4, [])


async def test_an_event_that_can_not_be_parked(
    broker: Broker, link: Connection, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """An event that can't be parked is not acknowledged."""
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, "*", durable="printer", start="all", backoff=QUICK)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        raise OSError("no")

    async with running(events):
        await rpc.call(link, "$JS.API.STREAM.DELETE.PARKED")
        await ended(journal, "one")
        await kept.reach(3)
        await eventually(lambda: "can't be parked, and will be redelivered" in caplog.text)
        assert await unsettled(link, "printer") == 1


async def test_a_deleted_consumer_is_recreated(broker: Broker, link: Connection, journal: Journal) -> None:
    """If a durable is deleted under its subscriber, no event is lost, new or not yet handled."""
    events, kept = events_broker(broker), KeptEvents()
    go = asyncio.Event()

    @subscribe(events, "*", durable="mailer", max_workers=2)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        if event.operation_id == "stuck" and event.deliveries == 1:
            await go.wait()

    async with running(events):
        await ended(journal, "stuck")
        await ended(journal, "one")
        await kept.reach(2)
        await delete_consumer(link, "mailer")
        await ended(journal, "two")
        await eventually(lambda: "two" in kept.ids, within=15)
        go.set()
        await settled(link, "mailer")
        await ended(journal, "three")
        await eventually(lambda: "three" in kept.ids)
    assert set(kept.ids) == {"stuck", "one", "two", "three"}


async def test_a_deleted_consumer_costs_nothing(broker: Broker, link: Connection, journal: Journal) -> None:
    """While a consumer can't be recreated the process waits; once the journal is gone it ends with the reason."""
    events, kept = events_broker(broker, on_lost=lambda _reason: None), KeptEvents()
    app = FastStream(events, logger=None)
    subscribe(events, "*", durable="mailer")(kept.keep)
    serving = asyncio.create_task(app.run())
    await eventually(lambda: events.running)
    await rpc.call(link, "$JS.API.STREAM.DELETE.OPERATIONS")
    before = broker.monitor("/varz")["in_msgs"]
    with pytest.raises(NotProvisioned, match="the broker has no stream OPERATIONS: run 'opstream provision'"):
        await asyncio.wait_for(serving, 20)
    assert broker.monitor("/varz")["in_msgs"] - before < 100


async def test_another_journal(broker: Broker, link: Connection, journal: Journal) -> None:
    """A durable is not recreated on a journal that ends before the subscriber's position."""
    from opstream_journal.provisioning.subscriber_consumers import SubscriberConsumer

    durable = SubscriberConsumer(link, "mailer", ["operations.*.*.*.succeeded"], ack_wait=30, max_pending=10)
    await ended(journal, "one")
    await durable.ensure("new")
    durable.ack_floor = 1_000
    await delete_consumer(link, "mailer")
    with pytest.raises(NotProvisioned, match="was at 1000: this is another journal"):
        await durable.recreate()


async def test_a_killed_broker(broker: Broker, link: Connection, journal: Journal) -> None:
    """If the broker is killed during the work and restarted, every event is handled."""
    events, kept = events_broker(broker), KeptEvents()
    go = asyncio.Event()

    @subscribe(events, "*", durable="mailer", start="all", max_workers=2, ack_wait=2.0)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        await go.wait()

    for number in range(6):
        await ended(journal, f"op-{number}")
    async with running(events):
        await kept.reach(2)
        broker.kill()
        go.set()
        await eventually(lambda: not events.journal_connection.is_connected)
        broker.start()
        await eventually(lambda: len(set(kept.ids)) == 6, within=20)
        await eventually(lambda: link.is_connected)
        await settled(link, "mailer")
        await ended(journal, "last")
        await eventually(lambda: "last" in kept.ids, within=10)
    # The broker may have lost that it had delivered the two.
    assert len(kept.ids) - len(set(kept.ids)) <= 2


async def test_no_event_runs_twice_at_once(broker: Broker, link: Connection, journal: Journal) -> None:
    """An event that is redelivered while its handler runs is left to that handler."""
    events, kept = events_broker(broker), KeptEvents()
    go = asyncio.Event()

    @subscribe(events, "*", durable="slow", start="all", max_workers=2)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        await go.wait()

    one = await ended(journal, "one")
    async with running(events):
        await kept.reach(1)
        # As after `ack_wait`: the broker redelivers the same event.
        await rpc.call(link, "$JS.API.CONSUMER.DELETE.OPERATIONS.slow")
        await eventually(lambda: has_redelivered(link, "slow", one.stream_sequence), within=10)
        go.set()
        await settled(link, "slow")
        await ended(journal, "two")
        await kept.reach(2)
    assert kept.ids == ["one", "two"]


async def test_replicas_share(broker: Broker, link: Connection, journal: Journal) -> None:
    """Processes with one durable share the events; another one handles what a stopped one did not finish."""
    first, second = events_broker(broker, graceful_timeout=0.1), events_broker(broker)
    held, kept = KeptEvents(), KeptEvents()

    @subscribe(first, "*", durable="mailer", start="all", max_workers=2)
    async def hold(event: Event) -> None:
        await held.keep(event)
        await asyncio.Event().wait()

    subscribe(second, "*", durable="mailer", start="all")(kept.keep)
    for number in range(4):
        await ended(journal, f"op-{number}")
    async with running(first):
        await held.reach(2)
        async with running(second):
            await kept.reach(2)
            assert not set(held.ids) & set(kept.ids)
            await first.stop()
            await kept.reach(4, within=5)
            await settled(link, "mailer")
    assert sorted(kept.ids) == [f"op-{number}" for number in range(4)]


async def test_a_graceful_stop(broker: Broker, link: Connection, journal: Journal) -> None:
    """A stop lets a running handler finish, acknowledges its event, and pulls no more."""
    events, kept = events_broker(broker), KeptEvents()
    go = asyncio.Event()

    @subscribe(events, "*", durable="mailer", start="all")
    async def handle(event: Event) -> None:
        await kept.keep(event)
        await go.wait()

    await ended(journal, "one")
    await ended(journal, "two")
    await events.start()
    await kept.reach(1)
    stopping = asyncio.create_task(events.stop())
    await asyncio.wait([stopping], timeout=0.2)
    assert not stopping.done()
    go.set()
    await stopping
    assert (kept.ids, await unsettled(link, "mailer")) == (["one"], 1)


async def test_the_lease_is_kept(broker: Broker, link: Connection, journal: Journal) -> None:
    """A handler may take longer than ack_wait: its event is not redelivered meanwhile."""
    events, kept = events_broker(broker), KeptEvents()
    go = asyncio.Event()

    @subscribe(events, "*", durable="slow", start="all", max_workers=2, ack_wait=1.0)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        await go.wait()

    await ended(journal, "one")
    async with running(events), linked(broker.url) as other:
        await kept.reach(1)
        before = events.clock()
        await eventually(lambda: events.clock() - before > 2.5)
        info = await consumer_info(other, "slow")
        assert (info["num_redelivered"], info["delivered"]["consumer_seq"]) == (0, 1)
        go.set()
        await settled(link, "slow")
    assert kept.ids == ["one"]


def permissions(durable: str) -> list[str]:
    """The subjects that docs/events.md says a subscriber may publish to."""
    document = (Path(__file__).resolve().parents[3] / "docs" / "events.md").read_text(encoding="utf-8")
    recipe = document.partition("\n## Permissions\n")[2].partition("publish: { allow: [")[2].partition("]")[0]
    return [one.replace("mailer", durable) for one in re.findall(r'"([^"]+)"', recipe)]


async def test_the_documented_permissions(caplog: pytest.LogCaptureFixture) -> None:
    """With the documented permissions, a subscriber creates its durable, handles, parks, retries and recovers."""
    allowed = permissions("mailer")
    assert len(allowed) > 8
    granted = {"publish": allowed, "subscribe": ["_INBOX_mailer.>", "retry.mailer"], "allow_responses": True}
    rights = msgspec.json.encode(granted).decode()
    users = f"{{user: admin, password: a}}, {{user: mailer, password: b, permissions: {rights}}}"
    with Broker(extra=f"authorization {{ users: [{users}] }}") as broker:
        async with linked(broker.url.replace("//", "//admin:a@")) as link:
            await provision(link, Sizing())
            await parking.ensure_stream(link)  # as the page has the operator do
            journal = await journal_on(link)
            events = EventsBroker(broker.url.replace("//", "//mailer:b@"), logger=None, inbox_prefix="_INBOX_mailer")
            kept = KeptEvents()

            @subscribe(events, "*", durable="mailer", start="all", backoff=Backoff(deliveries=1))
            async def handle(event: Event) -> None:
                await kept.keep(event)
                assert await event.requested() is not None
                if len(kept.events) == 1:
                    raise OSError("no")

            one = await ended(journal, "one")
            async with running(events):
                await settled(link, "mailer")
                assert await ask(link, "mailer", one.stream_sequence) == "done"
                await delete_consumer(link, "mailer")
                await ended(journal, "two")
                await eventually(lambda: "two" in kept.ids, within=15)
                await settled(link, "mailer")
            assert kept.ids[:2] == ["one", "one"]
            refused = re.findall(r'permissions violation for \w+ to "([^"]+)"', caplog.text)
            assert [one for one in refused if not one.startswith("_inbox.")] == []


async def test_a_handler_ends_its_process_or_itself(broker: Broker, link: Connection, journal: Journal) -> None:
    """FastStream's StopApplication and StopConsume stop in order, and their event is released."""
    for number, reason in enumerate((StopApplication, StopConsume)):
        events, kept = events_broker(broker), KeptEvents()
        app = FastStream(events, logger=None)
        durable = f"stopper-{number}"

        subscribe(events, "*", durable=durable)(stopping(kept, reason))
        serving = asyncio.create_task(app.run())
        await eventually(lambda events=events: events.running)
        await ended(journal, f"one-{number}")
        await kept.reach(1)
        if reason is StopApplication:
            await asyncio.wait_for(serving, 10)
        (subscriber,) = events.subscribers
        await eventually(lambda subscriber=subscriber: not subscriber.running)
        assert await unsettled(link, durable) == 1
        await ended(journal, f"two-{number}")
        assert len(kept.ids) == 1
        app.exit()
        await asyncio.wait_for(serving, 10)
