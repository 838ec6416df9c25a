"""The pages of actions in a real browser: what is offered, and a submit."""

from __future__ import annotations

import json

import pytest

from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_schemas.events import Requested
from tests.support.api.service import spec

from .conftest import ConsoleDesk

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="module")]


async def test_an_action_is_submitted_from_its_page(desk: ConsoleDesk) -> None:
    """The form has an example of its input, shows the command, and leads to the operation that it began."""
    visit = await desk.browser.visit(f"{desk.url}#/actions")
    await visit.page.get_by_role("link", name="book:upload-start").click()
    await visit.shows("h1", "book:upload-start")
    await visit.page.get_by_label("Resource id").fill("7/8")
    await visit.page.get_by_label("Resource id").fill("7 8")
    field = visit.page.locator("#action-input")
    assert "title" in json.loads(await field.input_value())
    await field.fill('{"title": "The Keeper\'s \\"Lamp\\""}')
    await visit.page.get_by_text("The same from a shell").click()
    command = await visit.text(".submit .raw pre")
    assert command.startswith(f"curl -sS -X POST '{desk.api.url}/book/7%208:upload-start'")
    assert """-d '{"title":"The Keeper'\\''s \\"Lamp\\""}'""" in command
    await visit.page.get_by_role("button", name="Submit").click()
    await visit.shows(".glance", "Not started")
    operation_id = visit.page.url.rpartition("/")[2]
    requested = (await desk.journal.events(operation_id))[0].data
    assert isinstance(requested, Requested)
    assert (requested.resource_id, bytes(requested.input)) == ("7 8", b'{"title":"The Keeper\'s \\"Lamp\\""}')
    assert visit.complaints == []


async def test_what_is_refused_is_shown_in_the_form(desk: ConsoleDesk) -> None:
    """Text that is no JSON before it is sent, an input that does not fit with the API's own words; both stay."""
    visit = await desk.browser.visit(f"{desk.url}#/actions/book%3Aupload-start")
    await visit.page.locator("#action-input").fill('{"title": ')
    await visit.page.get_by_role("button", name="Submit").click()
    await visit.shows(".submit .callout", "The input is not JSON")
    await visit.page.locator("#action-input").fill('{"title": 1}')
    await visit.page.get_by_role("button", name="Submit").click()
    await visit.shows(".submit .callout", "InvalidInput")
    assert await visit.page.locator("#action-input").input_value() == '{"title": 1}'


async def test_axe_finds_nothing(desk: ConsoleDesk) -> None:
    """On the list and on an action's page."""
    visit = await desk.browser.visit(f"{desk.url}#/actions", bypass_csp=True)
    for address in ("#/actions", "#/actions/book%3Aupload-start"):
        await visit.page.goto(f"{desk.url}{address}")
        await visit.page.locator("main h1, main h2").first.wait_for()
        await visit.has_no_breaches()


async def test_an_action_is_paused_and_resumed(desk: ConsoleDesk) -> None:
    """With a reason and a length, as from a shell; who looks at the action or at what waits sees why and since when,
    and what is typed into the form stays."""
    await ensure_runner_consumer(desk.link, spec())
    visit = await desk.browser.visit(f"{desk.url}#/actions/book%3Aupload-start")
    await visit.shows(".glance", "Active")
    await visit.page.get_by_label("Resource id").fill("kept")
    await visit.page.get_by_role("button", name="Pause…").click()
    await visit.page.get_by_label("For").select_option("an hour")
    await visit.page.get_by_label("Reason").fill("the <b>press</b> is moved")
    await visit.page.locator("dialog .command summary").click()
    command = await visit.text("dialog .raw pre")
    assert command.startswith(f"curl -sS -X POST '{desk.api.url}/actions/book:upload-start:pause'")
    assert """-d '{"reason":"the <b>press</b> is moved","seconds":3600}'""" in command
    await visit.page.get_by_role("button", name="Pause the action").click()
    await visit.shows('[aria-label="Pause"]', "the <b>press</b> is moved")
    await visit.shows('.glance [data-schedule="Paused"]')
    assert await visit.page.get_by_label("Resource id").input_value() == "kept"
    await visit.page.goto(f"{desk.url}#/actions")
    await visit.shows(".rows.actions", "Paused")
    response = await desk.api.submit()
    await visit.page.goto(f"{desk.url}#/operations/{response.json()['id']}")
    await visit.shows('[data-reason="Paused"]', "the <b>press</b> is moved")
    await visit.page.goto(f"{desk.url}#/actions/book%3Aupload-start")
    await visit.page.get_by_role("button", name="Resume…").click()
    await visit.page.get_by_role("button", name="Resume the action").click()
    await visit.shows('.glance [data-schedule="Active"]')
    assert visit.complaints == []
