"""What subscribers could not handle, over HTTP: who sees it, and that a subscriber handles it again."""

from __future__ import annotations

from typing import Any

import pytest

from opstream.events import ActionFailed, Backoff, EventsBroker, subscribe
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.stores import dead_letters
from opstream_schemas.events import Failed, OperationError
from tests.support.access.desk import serving_with_keys
from tests.support.api.service import Api, OperationStory, serving, spec
from tests.support.broker.server import Broker
from tests.support.console.stories import began
from tests.support.events.subscribers import events_broker, running
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PATH = "/subscribers/parked"
OUT_OF_PAPER = Failed(error=OperationError(code="OutOfPaper", message="there is no paper"))


class Mailer:
    """A subscriber that fails until it is mended.

    Attributes:
        is_broken: whether it fails.
        handled: the operations whose events it has handled.
    """

    def __init__(self) -> None:
        self.is_broken = True
        self.handled: list[str] = []

    def on(self, broker: Broker) -> EventsBroker:
        """Subscribe."""
        events = events_broker(broker)

        backoff = Backoff(first=0.01, deliveries=1)

        @subscribe(events, "book:*", durable="mailer", events="failed", start="all", backoff=backoff)
        async def mail(event: ActionFailed) -> None:
            if self.is_broken:
                raise ValueError("the mail server refused it")
            self.handled.append(event.operation_id)

        return events


async def listed(api: Api) -> list[dict[str, Any]]:
    """What the service lists as parked."""
    found: list[dict[str, Any]] = (await api.client.get(PATH)).json()["value"]
    return found


async def test_a_parked_event_is_handled_again(broker: Broker, link: Connection, journal: Journal) -> None:
    """While the subscriber fails it stays, with the reason; mended, it handles it, and the event is parked no more."""
    await announce_action(link, spec())
    mailer = Mailer()
    async with serving(broker.url) as api:
        assert await listed(api) == []  # before the stream exists
        async with running(mailer.on(broker)):
            response = await api.submit()
            story = await OperationStory.of(journal, response.json()["id"])
            await story.append(began(1), OUT_OF_PAPER)
            await eventually(lambda: listed(api))
            (one,) = await listed(api)
            assert (one["durable"], one["operationId"], one["event"]) == ("mailer", story.operation.id, "failed")
            assert (one["action"], one["reason"], one["deliveries"]) == ("book:upload-start", "HandlerFailed", 1)
            assert "the mail server refused it" in one["detail"]
            path = f"{PATH}/mailer/{one['sequence']}:retry"
            stays = await api.client.post(path)
            assert (stays.status_code, stays.json()["error"]["code"]) == (409, "HandlingFailed")
            assert "the mail server refused it" in stays.json()["error"]["message"]
            mailer.is_broken = False
            assert (await api.client.post(path)).status_code == 204
            assert mailer.handled == [story.operation.id]
            assert await listed(api) == []
            assert (await api.client.post(path)).json()["error"]["code"] == "DeadLetterNotFound"


async def test_an_admin_sees_its_tenant_only(broker: Broker, link: Connection, journal: Journal) -> None:
    """The events of other tenants look like none, to read and to retry; others than admins are refused. A subscriber
    that does not run is said so."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read:all")
        root = await desk.caller("acme", "root", "admin")
        foreign = await desk.caller("evil", "root", "admin")
        assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202
        story = await OperationStory.of(journal, desk.ids.stored_id("acme", "one"))
        async with running(Mailer().on(broker)):
            await story.append(began(1), OUT_OF_PAPER)
            await eventually(lambda: dead_letters.keys(link))
        ((_, sequence),) = await dead_letters.keys(link)
        path = f"{PATH}/mailer/{sequence}:retry"
        for response in (await ann.get(PATH), await ann.client.post(path)):
            assert (response.status_code, "admin" in response.text) == (403, True)
        assert (await foreign.get(PATH)).json() == {"value": []}
        assert (await foreign.client.post(path)).json()["error"]["code"] == "DeadLetterNotFound"
        (shown,) = (await root.get(PATH)).json()["value"]
        assert shown["operationId"] == "one"
        gone = await root.client.post(path)
        assert (gone.status_code, gone.json()["error"]["code"]) == (503, "ServiceNotRunning")
