"""The recipes of docs/events.md (Permissions) on a real server: a subscriber can do its work, and little else."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import nats
import nats.errors
import pytest

from opstream.events import ActionSucceeded, Backoff, EventsBroker, InvalidSubscription, subscribe
from opstream_journal import Connection, Journal, connect
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores import dead_letters
from tests.support.broker.server import Broker
from tests.support.events.subscribers import KeptEvents, ended, running, unsettled
from tests.support.journal.journals import KIND
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PAGE: Final = (Path(__file__).resolve().parents[3] / "docs" / "events.md").read_text(encoding="utf-8")
ACCOUNTS, USERS = re.findall(r"^```conf\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
RECIPES: Final = {
    "account": (ACCOUNTS, {"api_prefix": "JS.ops"}),
    "user": (f"authorization {{ {USERS} }}", {"inbox_prefix": "_INBOX_mailer"}),
}


def address(broker: Broker, user: str) -> str:
    """The URL of the broker for a user of the page, whose password is its name."""
    return broker.url.replace("nats://", f"nats://{user}:{user}@")


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The configuration of the server, and the options of the subscriber."""
    return RECIPES[request.param]


@pytest.fixture
def guarded(recipe: tuple[str, dict[str, Any]]) -> Any:
    """A server with that configuration."""
    with Broker(extra=recipe[0]) as broker:
        yield broker


@pytest.fixture
async def operator(guarded: Broker) -> AsyncIterator[Connection]:
    """The operator's connection; all is provisioned."""
    link = await connect([address(guarded, "operator")], "operator", connect_timeout=10)
    await provision(link, Sizing())
    yield link
    await link.close()


def subscriber(url: str, kept: KeptEvents, **options: Any) -> EventsBroker:
    """The subscriber of the page: it parks what it can't handle at once."""
    events = EventsBroker(url, logger=None, on_lost=lambda _: None, **options)

    @subscribe(
        events, "book:*", durable="mailer", events="succeeded", start="all", backoff=Backoff(first=0.01, deliveries=1)
    )
    async def mail(event: ActionSucceeded) -> None:
        requested = await event.requested()
        assert requested is not None
        if event.operation_id == "bad" and not kept.events:
            raise ValueError("no such address")
        await kept.keep(event)

    return events


def test_the_page_has_the_options() -> None:
    """The page connects as these tests do."""
    for _, options in RECIPES.values():
        for name, value in options.items():
            assert f'@127.0.0.1:4222", {name}="{value}")' in PAGE


async def test_a_subscriber_does_its_work(
    guarded: Broker, operator: Connection, recipe: tuple[str, dict[str, Any]]
) -> None:
    """It gets events, looks up the request, acknowledges, parks, and tries a parked event again for the operator."""
    journal = Journal(operator, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
    await journal.start()
    async with running(subscriber(address(guarded, "operator"), KeptEvents())):
        pass  # makes the durable, and PARKED
    await ended(journal, "bad")
    kept = KeptEvents()
    async with running(subscriber(address(guarded, "mailer"), kept, **recipe[1])):
        await eventually(lambda: dead_letters_of(operator), within=10)
        await ended(journal, "good")
        await kept.reach(1)
        assert kept.ids == ["good"]

        async def is_settled() -> bool:
            return not await unsettled(operator, "mailer")

        await eventually(is_settled)
        (sequence,) = await dead_letters_of(operator)
        answer = await operator.nc.request("retry.mailer", str(sequence).encode(), timeout=10)
        assert answer.data == b"done"
        assert kept.ids == ["good", "bad"]
    assert await dead_letters_of(operator) == []


async def dead_letters_of(link: Connection) -> list[int]:
    """The journal's sequences of what is parked for the subscriber."""
    return [sequence for _, sequence in await dead_letters.keys(link, "mailer")]


async def test_what_it_may_not_do(guarded: Broker, operator: Connection, recipe: tuple[str, dict[str, Any]]) -> None:
    """It can neither record events, nor see the answers of others, nor take another subscriber's events."""
    journal = Journal(operator, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
    await journal.start()
    async with running(subscriber(address(guarded, "operator"), KeptEvents())):
        pass
    heard: list[str] = []
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    prefix = recipe[1].get("inbox_prefix", "_INBOX")
    client = await nats.connect(address(guarded, "mailer"), error_cb=note, inbox_prefix=prefix)
    try:

        async def hear(message: Any) -> None:
            heard.append(message.subject)

        for subject in ("_INBOX.>", "operations.>", "$JS.API.>"):
            await client.subscribe(subject, cb=hear)
        await client.flush()
        await client.publish(f"operations.forged.{KIND.resource}.{KIND.action}.requested", b"{}")
        await client.publish("$KV.operations.forged", b"{}")
        await client.flush()
        api = recipe[1].get("api_prefix", "$JS.API")
        for call in (
            "CONSUMER.MSG.NEXT.OPERATIONS.projector",
            "CONSUMER.DELETE.OPERATIONS.mailer",
            "STREAM.PURGE.OPERATIONS",
        ):
            with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
                await client.request(f"{api}.{call}", b"", timeout=0.3)
        operation = await ended(journal, "op-1")
        own = (f"{prefix}.", "operations.forged.")  # in its account, which nothing of opstream reads
        assert [subject for subject in heard if not subject.startswith(own)] == []
        assert await journal.last_message("forged") is None
        assert operation.position == 3
    finally:
        await client.close()


@pytest.mark.parametrize("option", ["inbox_prefix", "api_prefix"])
@pytest.mark.parametrize("prefix", ["", "a b", "a.", ".a", "a.*", "a.>", "a..b", 7])
def test_prefixes_that_are_none(option: str, prefix: Any) -> None:
    """A prefix with which no subject can begin is refused when the broker is made."""
    with pytest.raises(InvalidSubscription, match=f"{option} .* must be tokens with dots between them"):
        EventsBroker("nats://127.0.0.1:4222", **{option: prefix})
