"""What was not delivered, over HTTP: who sees it, and that it is sent again by the webhooks service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opstream_api.undelivered.delivery_desk import PAGE_SIZE
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.stores.webhook_deliveries import DeliveryRecords
from opstream_schemas.events import Failed, OperationError
from opstream_schemas.logs.access_log import ActRecord, decode_access_record
from opstream_schemas.subjects import ACCESS_LOG_STREAM
from opstream_schemas.webhook_delivery import DeliveryOutcome
from opstream_webhooks.config import ConfigSource
from tests.support.access.desk import serving_with_keys
from tests.support.api.service import Api, OperationStory, serving, spec
from tests.support.broker.server import Broker
from tests.support.console.stories import began
from tests.support.system.wait import eventually
from tests.support.webhooks.attempts import attempted
from tests.support.webhooks.receiver import WebhookReceiver, answer
from tests.support.webhooks.service import delivering, write_hooks

pytestmark = pytest.mark.broker

OUT_OF_PAPER = Failed(error=OperationError(code="OutOfPaper", message="there is no paper"))
PATH = "/webhooks/deliveries"


async def listed(api: Api) -> list[dict[str, Any]]:
    """What the service lists as not delivered."""
    found: list[dict[str, Any]] = (await api.client.get(PATH)).json()["value"]
    return found


async def test_what_was_given_up_is_sent_again(
    tmp_path: Path, broker: Broker, link: Connection, journal: Journal, receiver: WebhookReceiver
) -> None:
    """A receiver that is gone ends a delivery at once; asked for over HTTP, it is made again, under the same id. What
    was delivered is in the list no more, and can't be asked for again. Without a webhooks service nobody can."""
    await announce_action(link, spec())
    source = ConfigSource(path=write_hooks(tmp_path, billing=receiver.url), is_http_allowed=True)
    async with serving(broker.url) as api:
        receiver.answers = [answer(410), answer(204)]
        async with delivering(link, source):
            response = await api.submit()
            story = await OperationStory.of(journal, response.json()["id"])
            await story.append(began(1), OUT_OF_PAPER)
            await eventually(lambda: listed(api))
            (one,) = await listed(api)
            assert (one["operationId"], one["endpoint"], one["outcome"]) == (story.operation.id, "billing", "gave-up")
            assert (one["event"], one["status"], one["attempt"]) == ("failed", 410, 1)
            path = f"{PATH}/{story.operation.id}/billing:redeliver"
            sent = await api.client.post(path)
            assert (sent.status_code, sent.content) == (204, b"")

            async def is_delivered() -> bool:
                return not await listed(api)

            await eventually(is_delivered)
        assert len({one.webhook_id for one in receiver.received}) == 1
        assert len(receiver.received) == 2
        again = await api.client.post(path)
        assert (again.status_code, again.json()["error"]["code"]) == (404, "DeliveryNotFound")
        await attempted(link, story.operation.id, endpoint="audit")
        alone = await api.client.post(f"{PATH}/{story.operation.id}/audit:redeliver")
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "ServiceNotRunning")


async def test_pages_have_each_delivery_once(link: Connection) -> None:
    """Whatever the size of a page: at its last failed attempt, and not at all once it was delivered."""
    retrying, gave_up, delivered = DeliveryOutcome.RETRYING, DeliveryOutcome.GAVE_UP, DeliveryOutcome.DELIVERED
    for attempt, outcome in enumerate((retrying, retrying, gave_up), start=1):
        for operation_id in ("a", "b", "c"):
            await attempted(link, operation_id, outcome, attempt=attempt)
    await attempted(link, "b", delivered, attempt=4)
    await attempted(link, "d", retrying)
    await attempted(link, "a", gave_up, endpoint="audit")
    records = DeliveryRecords(link)
    await records.start()
    for size in (1, 2, 3, 5, 100):
        found, first = [], 1
        while first:
            page = await records.undelivered(first, size)
            found += [(one.operation_id, one.endpoint, one.attempt) for one in page.attempts]
            first = page.next_sequence
        assert found == [("a", "billing", 3), ("c", "billing", 3), ("d", "billing", 1), ("a", "audit", 1)], size
    await records.stop()


async def test_an_admin_sees_its_tenant_only(broker: Broker, link: Connection, journal: Journal) -> None:
    """What other tenants' receivers missed is neither listed nor sent, and looks like nothing; others than admins are
    refused, and what an admin had sent is in the access log."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link) as desk, delivering(link, ConfigSource()):
        ann = await desk.caller("acme", "ann", "submit", "read:all", "cancel")
        root = await desk.caller("acme", "root", "admin")
        foreign = await desk.caller("evil", "root", "admin")
        assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202
        stored_id = desk.ids.stored_id("acme", "one")
        story = await OperationStory.of(journal, stored_id)
        await story.append(began(1), OUT_OF_PAPER)
        await attempted(link, stored_id)
        await attempted(link, "expired")
        path = f"{PATH}/one/billing:redeliver"
        refused = [await ann.get(PATH), await ann.client.post(path)]
        assert [(one.status_code, "admin" in one.text) for one in refused] == [(403, True), (403, True)]
        assert (await foreign.get(PATH)).json() == {"value": []}
        for mine in ("one", stored_id, "no-such"):
            hidden = await foreign.client.post(f"{PATH}/{mine}/billing:redeliver")
            assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "OperationNotFound")
        (shown,) = (await root.get(PATH)).json()["value"]
        assert shown["operationId"] == "one"
        assert stored_id not in (await root.get(PATH)).text
        assert (await root.client.post(path)).status_code == 204

        async def is_recorded() -> bool:
            return (await link.nc.jetstream().stream_info(ACCESS_LOG_STREAM)).state.messages >= 1

        await eventually(is_recorded)
        stored = await link.nc.jetstream().get_last_msg(ACCESS_LOG_STREAM, "access_log.act.redelivered")
        record = decode_access_record(stored.data or b"")
        assert isinstance(record, ActRecord)
        assert (record.by, record.tenant, record.target) == ("root", "acme", stored_id)


async def test_what_is_asked_for_is_checked(broker: Broker, link: Connection) -> None:
    """Names, methods, parameters and bodies, each with an error that says what is wrong."""
    async with serving(broker.url) as api:
        for method, path, status, code in (
            ("POST", PATH, 405, "MethodNotAllowed"),
            ("GET", f"{PATH}/one/billing:redeliver", 405, "MethodNotAllowed"),
            ("POST", f"{PATH}/one/billing", 404, "NotFound"),
            ("POST", f"{PATH}/one/B!:redeliver", 404, "DeliveryNotFound"),
            ("GET", f"{PATH}?after=x", 400, "InvalidParameter"),
            ("GET", f"{PATH}?after=99999999999999999999", 400, "InvalidParameter"),
            ("GET", f"{PATH}?after=", 400, "InvalidParameter"),
            ("GET", f"{PATH}?after=1&after=2", 400, "InvalidParameter"),
            ("GET", f"{PATH}?before=1", 400, "InvalidParameter"),
            ("GET", "/subscribers/parked?after=mailer", 400, "InvalidParameter"),
            ("POST", "/subscribers/parked/mailer/x:retry", 404, "NotFound"),
            ("POST", "/subscribers/parked/mailer/1:retry", 404, "DeadLetterNotFound"),
        ):
            response = await api.client.request(method, path)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), path
        text = await api.client.post(f"{PATH}/one/billing:redeliver", content=b"x", headers={"Origin": "http://a.b"})
        assert text.json()["error"]["code"] == "CrossSiteRequest"


async def test_actions_keep_their_paths(broker: Broker, link: Connection) -> None:
    """A resource may be called `webhooks` or `subscribers`, and one of it `deliveries`: these paths are its own."""
    from opstream_schemas.names import Kind

    await announce_action(link, spec(Kind("webhooks", "upload-start")))
    async with serving(broker.url) as api:
        for path in ("/webhooks:upload-start", "/webhooks/deliveries:upload-start", "/webhooks/7:upload-start"):
            assert (await api.submit(path)).status_code == 202, path


async def test_a_page_passes_over_what_is_settled(broker: Broker, link: Connection) -> None:
    """Hundreds of failures that were delivered since do not hide the one behind them, and what is left of the list is
    at its link."""
    for number in range(PAGE_SIZE + 50):
        await attempted(link, f"op-{number}", DeliveryOutcome.RETRYING)
        await attempted(link, f"op-{number}", DeliveryOutcome.DELIVERED, attempt=2)
    await attempted(link, "last")
    async with serving(broker.url) as api:
        first = (await api.client.get(PATH)).json()
        assert [one["operationId"] for one in first["value"]] == ["last"]
        for number in range(PAGE_SIZE + 1):
            await attempted(link, f"more-{number}")
        first = (await api.client.get(PATH)).json()
        rest = (await api.client.get(first["nextLink"])).json()
        found = [one["operationId"] for one in (*first["value"], *rest["value"])]
        assert found == ["last", *(f"more-{number}" for number in range(PAGE_SIZE + 1))]
        assert "nextLink" not in rest
