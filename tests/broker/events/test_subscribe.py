"""Subscribers get typed events from a durable consumer: which events, from which position, and how they are settled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import pytest
from faststream import BaseMiddleware, Depends
from faststream.exceptions import NackMessage
from faststream.nats.annotations import NatsMessage

from opstream.events import (
    ActionCanceled,
    ActionFailed,
    ActionRequested,
    ActionSucceeded,
    Backoff,
    Event,
    EventsBroker,
    InvalidSubscription,
    subscribe,
)
from opstream_journal import BrokerUnreachable, Connection, Drifted, Journal, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.subscriber_consumers import StartPosition
from opstream_journal.stores import dead_letters as parking
from opstream_schemas.events import Canceled, CancelRequested
from opstream_schemas.names import Kind
from tests.support.broker.server import Broker, free_port
from tests.support.events.subscribers import (
    FAILED,
    KeptEvents,
    consumer_info,
    ended,
    events_broker,
    more,
    opened,
    running,
    unsettled,
)
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

QUICK = Backoff(first=0.2, longest=0.8, deliveries=5)


class Pages(msgspec.Struct):
    pages: int


async def settled(link: Connection, durable: str) -> None:
    """Wait until all events of a durable are settled."""

    async def is_done() -> bool:
        return await unsettled(link, durable) == 0

    await eventually(is_done, within=15)


async def test_completions_are_typed(broker: Broker, link: Connection, journal: Journal) -> None:
    """A handler gets each end of an operation as its type, with the journal's data, and no other event."""
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, "book:upload-start", durable="mailer", start="all")
    async def mail(event: ActionSucceeded | ActionFailed | ActionCanceled) -> None:
        await kept.keep(event)

    await ended(journal, "one")
    await ended(journal, "two", FAILED)
    asked = await more(journal, await opened(journal, "three"), CancelRequested(by="ada"))
    last = await more(journal, asked, Canceled(reason="enough"))
    async with running(events):
        one, two, three = await kept.reach(3)
        requested = await one.requested()
        await settled(link, "mailer")
    assert isinstance(one, ActionSucceeded)
    assert (one.result_as(Pages), one.kind, one.position, one.deliveries) == (Pages(7), "book:upload-start", 3, 1)
    assert msgspec.json.decode(one.stored)["id"] == one.id
    assert isinstance(two, ActionFailed)
    assert (two.error.code, two.error.message) == ("OutOfPaper", "there is no paper")
    assert isinstance(three, ActionCanceled)
    assert (three.reason, three.sequence) == ("enough", last.stream_sequence)
    assert isinstance(requested, ActionRequested)
    assert (requested.resource_id, requested.operation_id) == ("42", "one")


@pytest.mark.parametrize(
    ("kind", "names", "wanted"),
    [
        ("book:*", "*", ["requested", "started", "succeeded", "requested", "started", "failed"]),
        ("*", ("failed",), ["failed", "failed"]),
        ("*:scan", ("succeeded", "failed"), ["failed"]),
        ("page:scan", "requested", ["requested"]),
    ],
)
async def test_filters(
    broker: Broker, journal: Journal, kind: str, names: str | tuple[str, ...], wanted: list[str]
) -> None:
    """Only matching events are delivered: by resource, by action, by event."""
    await ended(journal, "one")
    await ended(journal, "two", FAILED)
    await ended(journal, "three", FAILED, Kind("page", "scan"))
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, kind, durable="some", events=names, start="all")
    async def handle(event: Event) -> None:
        await kept.keep(event)

    async with running(events):
        await kept.reach(len(wanted))
    assert [one.name for one in kept.events] == wanted


async def test_where_it_starts(broker: Broker, link: Connection, journal: Journal) -> None:
    """A new durable begins now, at the beginning, at a sequence or at a time; an existing one continues."""
    first = await ended(journal, "one")
    await ended(journal, "two")
    starts: dict[str, StartPosition] = {
        "now": "new",
        "first": "all",
        "second": first.stream_sequence + 1,
        "past": datetime(2020, 1, 1, tzinfo=UTC),
    }

    async def deliver(operation_id: str) -> dict[str, list[str]]:
        events = events_broker(broker)
        got = {durable: KeptEvents() for durable in starts}
        for durable, start in starts.items():
            subscribe(events, "*", durable=durable, start=start)(got[durable].keep)
        async with running(events):
            await ended(journal, operation_id)
            for durable in starts:
                await settled(link, durable)
        return {durable: kept.ids for durable, kept in got.items()}

    assert await deliver("three") == {
        "now": ["three"],
        "first": ["one", "two", "three"],
        "second": ["two", "three"],
        "past": ["one", "two", "three"],
    }
    await ended(journal, "four")
    assert await deliver("five") == {durable: ["four", "five"] for durable in starts}


async def test_a_failing_handler_is_retried(broker: Broker, link: Connection, journal: Journal) -> None:
    """After each failure the delay doubles up to the longest, until the handler returns."""
    events, kept = events_broker(broker), KeptEvents()
    times = []

    @subscribe(events, "*", durable="shaky", start="all", backoff=QUICK)
    async def handle(event: Event) -> None:
        times.append(events.clock())
        await kept.keep(event)
        if event.deliveries < 5:
            raise OSError("no route to the printer")

    await ended(journal, "one")
    async with running(events):
        await kept.reach(5)
        await settled(link, "shaky")
    assert [one.deliveries for one in kept.events] == [1, 2, 3, 4, 5]
    for pause, (before, after) in zip((0.2, 0.4, 0.8, 0.8), pairwise(times), strict=True):
        assert pause <= after - before < pause + 1.5


async def test_a_failing_event_does_not_hold_up_others(broker: Broker, link: Connection, journal: Journal) -> None:
    """While one event waits for its next try, the handler gets the others."""
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, "*", durable="shaky", start="all", backoff=Backoff(first=60))
    async def handle(event: Event) -> None:
        await kept.keep(event)
        if event.operation_id == "one":
            raise OSError("no")

    for name in ("one", "two", "three"):
        await ended(journal, name)
    async with running(events):
        await kept.reach(3)
    assert kept.ids == ["one", "two", "three"]


async def test_ordered_holds_up_what_follows(broker: Broker, journal: Journal) -> None:
    """With `ordered`, a failed event is redelivered before any other."""
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, "*", durable="strict", start="all", ordered=True, backoff=QUICK)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        if event.operation_id == "one" and event.deliveries < 3:
            raise OSError("no")

    for name in ("one", "two"):
        await ended(journal, name)
    async with running(events):
        await kept.reach(4)
    assert kept.ids == ["one", "one", "one", "two"]


async def test_manual_acknowledgement(broker: Broker, link: Connection, journal: Journal) -> None:
    """With `ack="manual"` only `event.ack()` acknowledges, and `nak` redelivers after its delay."""
    events, kept = events_broker(broker), KeptEvents()

    @subscribe(events, "*", durable="careful", start="all", ack="manual")
    async def handle(event: Event) -> None:
        if event.deliveries == 1:
            await event.nak(0.3)
        await kept.keep(event)

    await ended(journal, "one")
    async with running(events):
        _, again = await kept.reach(2)
        assert await unsettled(link, "careful") == 1
        await again.ack()
        await settled(link, "careful")
    assert again.deliveries == 2


async def test_what_is_faststream(broker: Broker, link: Connection, journal: Journal) -> None:
    """Middlewares, dependencies, FastStream's message and its exceptions work as with its own subscribers."""
    seen: list[str] = []
    kept = KeptEvents()

    def number() -> int:
        return 7

    class Seeing(BaseMiddleware):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            seen.append(msg.correlation_id)
            return await call_next(msg)

    events = events_broker(broker, middlewares=[Seeing])

    @subscribe(events, "*", durable="injected", start="all")
    async def handle(
        event: ActionSucceeded | ActionFailed | ActionCanceled,
        seven: Annotated[int, Depends(number)],
        message: NatsMessage,
    ) -> None:
        assert (seven, message.message_id) == (7, event.id)
        await kept.keep(event)
        if event.deliveries == 1:
            raise NackMessage(delay=0.1)

    await ended(journal, "one")
    async with running(events):
        await kept.reach(2)
        await settled(link, "injected")
    assert seen == ["one", "one"]


async def test_what_is_filtered_out_is_done(broker: Broker, link: Connection, journal: Journal) -> None:
    """An event that FastStream's `filter` rejects is acknowledged: neither redelivered nor parked."""
    events, kept = events_broker(broker), KeptEvents()
    is_wanted = lambda message: message.correlation_id != "one"  # noqa: E731 - as users write it
    subscribe(events, "*", durable="picky", start="all", filter=is_wanted)(kept.keep)
    for name in ("one", "two"):
        await ended(journal, name)
    async with running(events):
        await kept.reach(1)
        await settled(link, "picky")
        assert await parking.keys(link) == []
    assert kept.ids == ["two"]


async def test_workers(broker: Broker, link: Connection, journal: Journal) -> None:
    """At most `max_workers` handlers run at once, and no more events are pulled."""
    events, kept = events_broker(broker), KeptEvents()
    go = asyncio.Event()

    @subscribe(events, "*", durable="many", start="all", max_workers=3)
    async def handle(event: Event) -> None:
        await kept.keep(event)
        await go.wait()

    for number in range(5):
        await ended(journal, f"op-{number}")
    async with running(events):
        await kept.reach(3)
        info = await consumer_info(link, "many")
        assert (info["num_ack_pending"], info["num_pending"], len(kept.events)) == (3, 2, 3)
        go.set()
        await kept.reach(5)


async def test_drift_is_refused(broker: Broker, link: Connection) -> None:
    """A durable with other filters is not changed, and the error says what differs."""
    for names in (("succeeded",), ("succeeded", "failed")):
        events = events_broker(broker)

        @subscribe(events, "book:*", durable="mailer", events=names)
        async def handle(event: Event) -> None: ...

        if names == ("succeeded",):
            async with running(events):
                pass
        else:
            with pytest.raises(Drifted, match=r"consumer mailer: filter_subjects is .*Use another durable"):
                await events.start()
    assert (await consumer_info(link, "mailer"))["config"]["filter_subjects"] == ["operations.*.book.*.succeeded"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_expires", 1_000_000_000),
        ("max_batch", 1),
        ("priority_groups", ["a"]),
        ("deliver_subject", "elsewhere"),
        ("replay_policy", "original"),
        ("headers_only", True),
    ],
)
async def test_a_durable_that_would_deliver_nothing(broker: Broker, link: Connection, field: str, value: Any) -> None:
    """A consumer that would deliver nothing to this subscriber is refused at the start."""
    config = {
        "durable_name": "mailer",
        "filter_subjects": [f"operations.*.book.*.{name}" for name in ("canceled", "failed", "succeeded")],
        "ack_policy": "explicit",
        "ack_wait": 30_000_000_000,
        "max_ack_pending": 1000,
        "max_waiting": 0 if field == "deliver_subject" else 512,
        field: value,
    } | ({"priority_policy": "overflow"} if field == "priority_groups" else {})
    request = msgspec.json.encode({"stream_name": "OPERATIONS", "config": config, "action": "create"})
    made = await rpc.call(link, "$JS.API.CONSUMER.CREATE.OPERATIONS.mailer", request)
    assert b'"error"' not in made.data
    events = events_broker(broker)
    subscribe(events, "book:*", durable="mailer")(KeptEvents().keep)
    with pytest.raises(Drifted, match=rf"consumer mailer: .*{field} is .*Use another durable"):
        await events.start()


async def test_no_journal(broker: Broker) -> None:
    """Without a journal the start fails with the command that makes one."""
    events = events_broker(broker)

    @subscribe(events, "book:*", durable="mailer")
    async def handle(event: Event) -> None: ...

    with pytest.raises(NotProvisioned, match="run 'opstream provision'"):
        await events.start()


@pytest.mark.parametrize("is_subscribed", [False, True])
async def test_no_broker(is_subscribed: bool) -> None:
    """Without a broker the start fails in bounded time, naming the address, also with subscribers to stop."""
    port = free_port()
    events = EventsBroker(f"nats://127.0.0.1:{port}, nats://ada:secret@127.0.0.1:{port}", connect_timeout=0.5)
    if is_subscribed:

        @subscribe(events, "book:*", durable="mailer")
        async def handle(event: Event) -> None: ...

    with pytest.raises(BrokerUnreachable) as unreachable:
        await events.start()
    assert str(unreachable.value) == (
        f"no NATS broker answered at nats://127.0.0.1:{port}, nats://…@127.0.0.1:{port} within 0.5 s: "
        "start one ('opstream broker') or give EventsBroker its URL"
    )


async def test_one_parameter(broker: Broker, link: Connection) -> None:
    """A handler with a parameter that FastStream can't fill in is refused at the start, not at each event."""
    events = events_broker(broker)

    @subscribe(events, "book:*", durable="mailer")
    async def handle(event: Event, copies: int = 1) -> None: ...

    with pytest.raises(InvalidSubscription, match="handle must take the event alone, and what FastStream injects"):
        await events.start()
