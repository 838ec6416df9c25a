"""Invalid subscriptions are refused with one line at import, before anything connects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from faststream import FastStream
from faststream.nats import NatsBroker
from faststream.nats.annotations import NatsMessage
from hypothesis import given
from hypothesis import strategies as st

from opstream.events import (
    ActionCanceled,
    ActionFailed,
    ActionSucceeded,
    Backoff,
    Event,
    EventsBroker,
    InvalidSubscription,
    OperationError,
    UnexpectedShape,
    subscribe,
)
from opstream.events.event_reader import read_event
from opstream.events.model import COMPLETIONS, EVENT_CLASSES
from opstream.events.subscription import subject_filters
from opstream_schemas.events import EVENT_DATA
from opstream_schemas.urls import BrokerCredentials

pytestmark = pytest.mark.unit

PLACE = os.path.relpath(__file__)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "events", "expected"),
    [
        ("book:upload-start", ("succeeded",), ["operations.*.book.upload-start.succeeded"]),
        ("book:*", "failed", ["operations.*.book.*.failed"]),
        ("*:scan", ("failed", "failed"), ["operations.*.*.scan.failed"]),
        ("*", "*", ["operations.*.*.*.*"]),
        ("*", COMPLETIONS, [f"operations.*.*.*.{name}" for name in ("succeeded", "failed", "canceled")]),
    ],
)
def test_filters(kind: str, events: Any, expected: list[str]) -> None:
    """A kind and events become subject filters."""
    assert subject_filters(kind, events) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "book"}, "'book' is not something to subscribe to (resource name '' must be"),
        ({"kind": "book/42:up"}, "write 'book:upload-start', 'book:*' or '*'"),
        ({"kind": "bo*:up"}, "resource name 'bo*' must be"),
        ({"events": ("done",)}, "there is no event 'done': choose from requested, started,"),
        ({"events": ()}, "events is empty: choose from"),
        ({"durable": 7}, "durable 7 is not a valid name"),
        ({"durable": "my mailer"}, "durable 'my mailer' must be 1 to 64 characters of A-Z, a-z, 0-9 and '-'"),
        ({"durable": "runner_book_up"}, "durable 'runner_book_up' must be"),
        ({"durable": "projector"}, "durable 'projector' is the name of an opstream service"),
        ({"start": "yesterday"}, "start 'yesterday' must be 'new', 'all', a stream sequence from 1 on, or a datetime"),
        ({"start": 0}, "start 0 must be"),
        ({"start": True}, "start True must be"),
        ({"start": datetime(2026, 1, 1)}, "start has no time zone"),  # noqa: DTZ001 - that is the point
        ({"start": datetime(9999, 1, 1, tzinfo=UTC)}, "must be between 1970 and 2200: the broker counts nanoseconds"),
        ({"start": datetime(1, 1, 1, tzinfo=UTC)}, "must be between 1970 and 2200"),
        ({"ack": "later"}, "ack 'later' must be 'auto' or 'manual'"),
        ({"max_workers": 0}, "max_workers 0 must be from 1 to 1000"),
        ({"max_workers": 2, "ordered": True}, "ordered needs max_workers=1"),
        ({"max_workers": 9, "max_pending": 8}, "max_pending 8 must be at least max_workers, which is 9"),
        ({"ack_wait": 0.5}, "ack_wait 0.5 must be from 1 to 3600 seconds"),
        ({"backoff": Backoff(first=0)}, "backoff: first must be more than 0 seconds"),
        ({"backoff": Backoff(first=9, longest=1)}, "backoff: first must be more than 0 seconds, and longest at least"),
        ({"backoff": Backoff(deliveries=0)}, "backoff: deliveries 0 must be at least 1"),
        ({"backoff": Backoff(longest=float("inf"))}, "backoff: longest inf must be at most 604800 seconds"),
        ({"backoff": 5}, "backoff 5 must be a Backoff(first="),
        ({"max_workers": "3"}, "max_workers '3' must be a whole number"),
        ({"max_pending": 1.5}, "max_pending 1.5 must be a whole number"),
        ({"max_pending": 10**30}, "must be at most 1000000"),
        ({"ack_wait": "30"}, "ack_wait '30' must be a number of seconds"),
        ({"start": None}, "start None must be 'new', 'all'"),
        ({"start": 1.5}, "start 1.5 must be"),
        ({"start": 2**63}, "must be 'new', 'all', a stream sequence"),
        ({"events": None}, "events None must be names of events"),
        ({"retries": 3}, "subscribe has no option retries: it has durable, events, start"),
        ({"max_worker": 3}, "subscribe has no option max_worker: did you mean 'max_workers'?"),
        ({"events": [["failed"]]}, "there is no event ['failed']: choose from requested, started,"),
        ({"ack": ["auto"]}, "ack ['auto'] must be 'auto' or 'manual'"),
        ({"backoff": 0}, "backoff 0 must be a Backoff(first="),
    ],
)
def test_bad_arguments(given: dict[str, Any], message: str) -> None:
    """Each is refused with what to write instead."""
    arguments = {"kind": "book:*", "durable": "mailer", **given}
    with pytest.raises(InvalidSubscription) as refused:
        subscribe(EventsBroker(), arguments.pop("kind"), **arguments)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{PLACE}:")
    assert refused.value.__suppress_context__  # no traceback of the checks


@pytest.mark.parametrize(
    "given",
    [
        {"servers": ""},
        {"servers": []},
        {"connect_timeout": 0},
        {"connect_timeout": "5"},
        {"credentials": BrokerCredentials(user="ann")},
        {"inbox_prefix": "a b"},
    ],
)
def test_an_invalid_broker(given: dict[str, Any]) -> None:
    """A broker needs a server, a positive timeout, a whole login and valid prefixes. The error begins with the author's
    line, and has no traceback of the checks."""
    with pytest.raises(InvalidSubscription) as refused:
        EventsBroker(**given)
    assert str(refused.value).startswith(f"{PLACE}:")
    assert refused.value.__suppress_context__


def test_a_durable_has_one_handler() -> None:
    """A second handler on a durable is refused."""
    broker = EventsBroker()

    @subscribe(broker, "book:*", durable="mailer")
    async def one(event: Event) -> None: ...

    with pytest.raises(InvalidSubscription, match="durable 'mailer' has a handler already"):
        subscribe(broker, "page:*", durable="mailer")


def test_the_applications_own_document() -> None:
    """FastStream can describe an application that subscribes to events."""
    broker = EventsBroker()

    @subscribe(broker, "book:*", durable="mailer")
    async def mail(event: Event) -> None: ...

    @broker.subscriber("greetings")
    async def greet(name: str) -> None: ...

    document = FastStream(broker).schema.to_specification().to_json()
    assert "greetings" in document
    assert "mailer" not in document


def test_another_broker() -> None:
    """A plain NatsBroker is refused."""
    with pytest.raises(InvalidSubscription, match="must be an EventsBroker, not NatsBroker"):
        subscribe(NatsBroker(), "book:*", durable="mailer")  # type: ignore[arg-type]


def test_a_handler_takes_what_it_is_subscribed_to() -> None:
    """A handler whose annotation leaves out an event is refused."""

    async def mail(event: ActionSucceeded | ActionFailed) -> None: ...

    with pytest.raises(InvalidSubscription) as refused:
        subscribe(EventsBroker(), "book:*", durable="mailer")(mail)
    assert re.sub(r":\d+", "", str(refused.value), count=1) == (
        f"{PLACE}: mail takes ActionSucceeded | ActionFailed, but is also subscribed to canceled: name its events with "
        "events=, or let it take ActionCanceled"
    )
    with pytest.raises(
        InvalidSubscription, match=r"mail takes ActionSucceeded .*subscribed to attached, attempt-failed"
    ):
        subscribe(EventsBroker(), "book:*", durable="mailer", events="*")(mail)

    async def other(event: Any) -> None: ...

    for taken in (str, dict[str, str], bytes):
        other.__annotations__["event"] = taken
        with pytest.raises(InvalidSubscription, match="which is no event: let it take ActionFailed"):
            subscribe(EventsBroker(), "book:*", durable="mailer", events="failed")(other)

    async def raw(message: NatsMessage, event: Any) -> None: ...
    async def untyped(event) -> None: ...  # type: ignore[no-untyped-def]

    for fine in (raw, untyped):
        assert subscribe(EventsBroker(), "book:*", durable="mailer", events="failed")(fine) is not None
    wrapped = subscribe(EventsBroker(), "book:*", durable="mailer", events=("succeeded", "failed"))(mail)
    assert wrapped is not None


async def test_a_handler_is_tested_by_calling_it() -> None:
    """A test can call the decorated function with an event that it constructs."""
    got = []

    @subscribe(EventsBroker(), "book:*", durable="mailer")
    async def mail(event: ActionSucceeded | ActionFailed | ActionCanceled) -> str:
        got.append(event.operation_id)
        await event.ack()
        return event.kind

    made = ActionFailed(
        operation_id="1", resource="book", action="up", time=NOW, error=OperationError(code=404, message="no book")
    )
    assert await mail(made) == "book:up"
    assert (got, await made.requested()) == (["1"], None)


def test_a_result_of_another_form() -> None:
    """A result of another type raises UnexpectedShape with the operation's id."""
    made = ActionSucceeded(
        operation_id="1", resource="book", action="up", time=NOW, result=msgspec.Raw(b'{"pages":"x"}')
    )
    assert made.result_as(dict[str, str]) == {"pages": "x"}
    with pytest.raises(UnexpectedShape, match="succeeded of 1 does not hold a int: Expected `int`, got `object`"):
        made.result_as(int)


def test_every_event_has_its_type() -> None:
    """There is an event class for each event of the contract."""
    assert list(EVENT_CLASSES) == [one.name for one in EVENT_DATA]


@given(st.binary(max_size=200), st.text(max_size=60))
def test_any_message_is_read_or_refused(data: bytes, subject: str) -> None:
    """Any message becomes an event or raises UnreadableEvent."""
    from opstream.events.errors import UnreadableEvent

    with pytest.raises(UnreadableEvent):
        read_event(subject, data, 1, 1, None)
    with pytest.raises(UnreadableEvent):
        read_event("operations.1.book.up.succeeded", data, 1, 1, None)


@given(st.integers(1, 10_000), st.floats(0.5, 1.0))
def test_backoff_is_bounded(deliveries: int, factor: float) -> None:
    """Each delay is between half of `first` and `longest`."""
    assert 0.5 <= Backoff().delay(deliveries, factor) <= 300.0


def test_opstream_alone_is_light() -> None:
    """`import opstream` loads no FastStream, and `opstream.events` does."""
    program = (
        "import sys, opstream; assert not {'faststream', 'nats'} & set(sys.modules); "
        "import opstream.events; assert 'faststream' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
