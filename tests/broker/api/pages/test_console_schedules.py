"""The pages of schedules in a real browser: made, changed, paused, triggered, deleted; each as curl, too."""

from __future__ import annotations

from typing import Any, Final

import httpx
import pytest

from tests.support.console.browser import Visit

from .conftest import ConsoleDesk

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="module")]

INPUT: Final = '{"title":"Moby Dick","note":{"path":"9.70","hash":"\\u00e9"}}'
"""Parts of it would look otherwise if a page read and wrote it again."""


async def put(desk: ConsoleDesk, name: str, **changes: Any) -> None:
    """Make a schedule over HTTP."""
    definition = {"action": "book:upload-start", "cron": "30 3 * * *", "timeZone": "Europe/Berlin", **changes}
    async with httpx.AsyncClient(base_url=desk.api.url) as http:
        response = await http.put(f"/schedules/{name}", json={"input": {"title": "Moby Dick"}, **definition})
    assert response.is_success, response.text


async def read(desk: ConsoleDesk, path: str) -> Any:
    """What the API says at a path below `/schedules`; its status if it is an error."""
    async with httpx.AsyncClient(base_url=desk.api.url) as http:
        response = await http.get(f"/schedules/{path}")
    return response.json() if response.is_success else response.status_code


async def act(visit: Visit, button: str, verb: str) -> str:
    """Press a button of the page, then that of its dialog, and return the command that the dialog showed."""
    await visit.page.get_by_role("button", name=button).click()
    await visit.page.locator("dialog .command summary").click()
    command = await visit.text("dialog .raw pre")
    await visit.page.locator("dialog").get_by_role("button", name=verb).click()
    return command


async def test_a_schedule_is_made_with_a_form(desk: ConsoleDesk) -> None:
    """The form has an example of the input; what the API refuses stays in it; then the next ten moments are shown."""
    visit = await desk.browser.visit(f"{desk.url}#/schedules")
    await visit.page.get_by_role("link", name="New schedule").click()
    await visit.page.get_by_label("Name").fill("nightly")
    assert "title" in await visit.page.get_by_label("Input").input_value()
    await visit.page.get_by_label("Input").fill(INPUT)
    await visit.page.get_by_label("Expression", exact=True).fill("0 25 * * *")
    await visit.page.get_by_label("Time zone").fill("Europe/Berlin")
    await visit.page.get_by_role("button", name="Save").click()
    await visit.shows("form .callout", "InvalidInput")
    await visit.page.get_by_label("Expression", exact=True).fill("30 3 * * 1-5")
    await visit.page.locator(".command summary").click()
    command = await visit.text(".command pre")
    assert command.startswith(f"curl -sS -X PUT '{desk.api.url}/schedules/nightly'")
    assert f'"input":{INPUT},"cron":"30 3 * * 1-5","timeZone":"Europe/Berlin"' in command
    await visit.page.get_by_role("button", name="Save").click()
    await visit.shows(".glance", "30 3 * * 1-5 · Europe/Berlin")
    shown = await visit.page.locator(".coming li > time").evaluate_all("(all) => all.map((one) => one.dateTime)")
    assert shown == (await read(desk, "nightly:preview?count=10"))["value"]
    assert len(shown) == 10
    assert visit.complaints == ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]


async def test_it_is_paused_changed_and_resumed(desk: ConsoleDesk) -> None:
    """By the same requests as from a shell; its input keeps each character."""
    async with httpx.AsyncClient(base_url=desk.api.url) as http:
        body = f'{{"action":"book:upload-start","every":3600,"input":{INPUT}}}'
        sent = {"Content-Type": "application/json"}
        assert (await http.put("/schedules/pulse", content=body, headers=sent)).status_code == 201
    visit = await desk.browser.visit(f"{desk.url}#/schedules/pulse")
    assert await act(visit, "Pause…", "Pause") == f"curl -sS -X POST '{desk.api.url}/schedules/pulse:pause'"
    await visit.shows('.glance [data-schedule="Paused"]')
    await visit.page.get_by_role("link", name="Change").click()
    await visit.page.get_by_label("Seconds").fill("7200")
    await visit.page.locator(".command summary").click()
    assert f'"input":{INPUT},"every":7200,"paused":true' in await visit.text(".command pre")
    await visit.page.get_by_role("button", name="Save").click()
    await visit.shows(".glance", "every 2 h")
    await visit.shows('.glance [data-schedule="Paused"]')
    await act(visit, "Resume…", "Resume")
    await visit.shows('.glance [data-schedule="Active"]')
    found = await read(desk, "pulse")
    assert (found["every"], found["status"], found["input"]["note"]["path"]) == (7200, "Active", "9.70")


async def test_it_is_triggered_and_made_up_for(desk: ConsoleDesk) -> None:
    """A trigger leads to its operation; a backfill makes one for each moment; the history has them all."""
    await put(desk, "hourly", cron="0 * * * *")
    visit = await desk.browser.visit(f"{desk.url}#/schedules/hourly", timezone_id="Asia/Kolkata")
    await act(visit, "Trigger now…", "Trigger")
    await visit.shows(".glance", "Not started")
    assert "#/operations/trig-hourly-" in visit.page.url
    await visit.page.go_back()
    await visit.page.get_by_role("button", name="Backfill…").click()
    await visit.page.get_by_label("From").fill("2026-11-24T05:31")
    await visit.page.get_by_label("To", exact=True).fill("2026-11-24T07:29")
    await visit.page.locator("dialog").get_by_role("button", name="Backfill").click()
    await visit.shows("#toast", "1 of 1 moments have an operation now")
    await visit.shows(".moments", "sched-hourly-20261124T010000Z")
    causes = [record["cause"] for record in (await read(desk, "hourly/history"))["value"]]
    assert causes == ["trigger", "backfill"]
    await visit.shows(".moments tr", "backfill")
    await visit.shows('.moments [data-status="NotStarted"]')


async def test_it_is_deleted(desk: ConsoleDesk) -> None:
    """After a question; the list does not have it any more."""
    await put(desk, "gone")
    visit = await desk.browser.visit(f"{desk.url}#/schedules")
    await visit.page.get_by_role("link", name="gone").click()
    await act(visit, "Delete…", "Delete the schedule")
    await visit.page.wait_for_url("**/console#/schedules")
    assert await read(desk, "gone") == 404
    await visit.shows(".schedules, .empty")
    assert await visit.page.get_by_role("link", name="gone").count() == 0


async def test_an_unknown_schedule_is_said_so(desk: ConsoleDesk) -> None:
    """With the API's own words."""
    visit = await desk.browser.visit(f"{desk.url}#/schedules/no-such")
    await visit.shows('[data-error="missing"]', "ScheduleNotFound")


async def test_axe_finds_nothing(desk: ConsoleDesk) -> None:
    """On the list, the form, a page and its dialog, light and dark, wide and on a phone."""
    await put(desk, "nightly-2", pauseOnFailure=True, paused=True)
    await put(desk, "weekly", cron="0 4 * * 0", resourceId="catalogue-2026")
    visit = await desk.browser.visit(f"{desk.url}#/schedules", bypass_csp=True)
    for address in ("#/schedules", "#/schedules?new"):
        await visit.page.goto(f"{desk.url}{address}")
        await visit.page.locator(".table, form.submit").first.wait_for()
        await visit.has_no_breaches()
    await visit.page.goto(f"{desk.url}#/schedules/nightly-2")
    await visit.page.get_by_role("button", name="Backfill…").click()
    await visit.has_no_breaches()
