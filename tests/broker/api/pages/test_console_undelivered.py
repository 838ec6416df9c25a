"""The page of what did not reach others in a real browser: what it shows, and that it has it sent and handled again."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg

from opstream_journal.stores import dead_letters
from opstream_journal.stores.dead_letters import DeadLetter
from opstream_journal.stores.webhook_deliveries import DeliveryRecords, DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.events import Failed, OperationError
from opstream_schemas.names import Kind
from opstream_schemas.webhook_delivery import DeliveryOutcome
from opstream_webhooks.redelivery import RedeliveryDesk
from tests.support.console.browser import Visit
from tests.support.console.stories import began, happened
from tests.support.projector.projection import running
from tests.support.system.wait import eventually
from tests.support.webhooks.attempts import attempted
from tests.support.webhooks.service import utc_now

from .conftest import ConsoleDesk

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="module")]

OUT_OF_PAPER = Failed(error=OperationError(code="OutOfPaper", message="there is no paper"))


async def failed(desk: ConsoleDesk, endpoint: str, error: str = "the receiver answered 503") -> str:
    """An operation whose outcome an endpoint did not take; return its id."""
    story = await happened(desk.api, desk.journal, (0.1, began(1)), (0.2, OUT_OF_PAPER))
    await attempted(desk.link, story.operation.id, endpoint=endpoint, error=error)
    return story.operation.id


async def queued(desk: ConsoleDesk, endpoint: str, operation_id: str) -> bool:
    """Return True if a delivery is in the queue of the webhooks service."""
    info = await desk.link.nc.jetstream().stream_info(
        subjects.WEBHOOKS_STREAM, subjects_filter=f"webhooks.*.{endpoint}.{operation_id}"
    )
    return bool(info.state.subjects)


async def opened(desk: ConsoleDesk, **context: object) -> Visit:
    """The page, once it shows what there is."""
    visit = await desk.browser.visit(f"{desk.url}#/undelivered", **context)
    await visit.shows('[aria-label="Webhook deliveries"]')
    return visit


async def test_a_delivery_is_sent_again(desk: ConsoleDesk) -> None:
    """One by one, with its command, or all of an endpoint; what does not run is said. What was delivered is gone."""
    one, two, three = [await failed(desk, endpoint) for endpoint in ("billing", "audit", "audit")]
    visit = await opened(desk)
    await visit.shows(".deliveries", "Given up")
    row = visit.page.locator("tr", has_text=one)
    await row.get_by_role("button", name="Send again…").click()
    await visit.page.locator("dialog .command summary").click()
    command = await visit.text("dialog .raw pre")
    assert command == f"curl -sS -X POST '{desk.api.url}/webhooks/deliveries/{one}/billing:redeliver'"
    send = visit.page.locator("dialog").get_by_role("button", name="Send again")
    await send.click()
    await visit.shows("dialog .callout", "ServiceNotRunning")
    service = RedeliveryDesk(desk.link, DeliveryStore(desk.link), now=utc_now)
    async with running(service):
        await eventually(lambda: DeliveryRecords(desk.link).ask_again("none", "none"))
        await send.click()
        await row.get_by_text("asked for").wait_for()
        assert await queued(desk, "billing", one)
        await visit.page.get_by_role("button", name="Send all to audit again…").click()
        await visit.shows("dialog[open]", "Send 2 deliveries to audit again?")
        await visit.page.get_by_role("button", name="Send them again").click()
        await visit.page.locator("dialog").wait_for(state="detached")
        assert await queued(desk, "audit", two)
        assert await queued(desk, "audit", three)
    for operation_id, endpoint in ((one, "billing"), (two, "audit"), (three, "audit")):
        await attempted(desk.link, operation_id, DeliveryOutcome.DELIVERED, endpoint=endpoint)
    await visit.page.reload()
    await visit.shows('[aria-label="Webhook deliveries"]', "has been")
    assert [text for text in visit.complaints if "503" not in text] == []


async def test_an_event_is_handled_again(desk: ConsoleDesk) -> None:
    """What the subscriber says stays in the dialog while it fails; once it has handled it, the event is gone."""
    story = await happened(desk.api, desk.journal, (0.1, began(1)), (0.2, OUT_OF_PAPER))
    await dead_letters.ensure_stream(desk.link)
    letter = DeadLetter(
        durable="mailer",
        sequence=77,
        subject=subjects.event_subject(story.operation.id, Kind("book", "upload-start"), "failed"),
        reason="HandlerFailed",
        detail="the mail server <b>refused</b> it",
        deliveries=3,
        data=b"{}",
    )
    await dead_letters.add(desk.link, letter)
    answers = [b"failed: it stays parked: HandlerFailed: refused", b"done"]

    async def handle(request: Msg) -> None:
        if answers[0] == b"done":
            found = await dead_letters.find(desk.link, "mailer", 77)
            assert found is not None
            await dead_letters.remove(desk.link, found)
        await request.respond(answers.pop(0))

    subscription = await desk.link.nc.subscribe(subjects.dead_letter_retry_subject("mailer"), cb=handle)
    visit = await opened(desk)
    await visit.shows(".parked", "the mail server <b>refused</b> it")
    await visit.page.get_by_role("button", name="Handle again…").click()
    again = visit.page.locator("dialog").get_by_role("button", name="Handle again")
    await again.click()
    await visit.shows("dialog .callout", "it stays parked")
    await again.click()
    await visit.shows('[aria-label="Parked events"]', "No subscriber has put an event aside")
    await subscription.unsubscribe()


async def test_axe_finds_nothing(desk: ConsoleDesk) -> None:
    """On the page with failures and a long reason, and on a dialog."""
    await failed(desk, "billing", "no answer within 15 s from https://billing.example.com/" + "a/very/long/path/" * 6)
    await failed(desk, "billing")
    visit = await opened(desk, bypass_csp=True)
    await visit.shows(".deliveries")
    await visit.has_no_breaches()
    await visit.page.get_by_role("button", name="Send all to billing again…").click()
    await visit.has_no_breaches()
