"""What surrounds the console's views, in a real browser: keys, theme, prefix, and each way in which the API fails."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from playwright.async_api import Route

from tests.support.api.prefix_proxy import behind
from tests.support.api.service import serving
from tests.support.console.stories import began, happened

from .conftest import ConsoleDesk

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="module")]


async def test_it_loads_from_the_service_only(desk: ConsoleDesk) -> None:
    """Each request goes to the service that served the page, and the browser has nothing to complain about."""
    visit = await desk.browser.visit(f"{desk.url}#/actions")
    await visit.shows("h1", "Actions")
    assert visit.complaints == []
    assert all(url.startswith(f"{desk.api.url}/") for _, url in visit.requests)


async def test_below_a_path_prefix(desk: ConsoleDesk) -> None:
    """A proxy may serve the API below any path: the console finds its files and the API there."""
    story = await happened(desk.api, desk.journal, (0.0, began(1)))
    with behind(desk.api.url, "/books/api") as url:
        visit = await desk.browser.visit(f"{url}/console#/operations/{story.operation.id}")
        await visit.shows(".glance", "Running")
        assert all(asked.startswith(f"{url}/") for _, asked in visit.requests)
        await desk.browser.forget()


async def test_a_slash_at_the_end_leads_to_the_page(desk: ConsoleDesk) -> None:
    """People type it."""
    visit = await desk.browser.visit(f"{desk.url}/")
    assert visit.page.url.startswith(desk.url)
    await visit.shows("h1", "Overview")


async def test_methods_and_unknown_files(desk: ConsoleDesk) -> None:
    """They are refused as on every path."""
    async with httpx.AsyncClient(base_url=desk.api.url) as http:
        assert (await http.post("/console")).status_code == 405
        assert (await http.options("/console/main.js")).headers["Allow"] == "GET, HEAD"
        assert (await http.get("/console/nothing.js")).status_code == 404
        assert (await http.get("/console/core/nothing/dom.js")).status_code == 404
        head = await http.head("/console/core/dom.js")
        assert (head.status_code, head.headers["content-type"]) == (200, "text/javascript; charset=utf-8")


async def test_an_unknown_operation_is_said_so(desk: ConsoleDesk) -> None:
    """With the API's own words, not with an empty page."""
    visit = await desk.browser.visit(f"{desk.url}#/operations/no-such-operation")
    await visit.shows('[data-error="missing"]', "OperationNotFound")


async def test_a_broken_api_is_said_and_tried_again(desk: ConsoleDesk) -> None:
    """A page of a proxy with 502, then an answer that is no JSON: the reader sees it, and what comes after it."""
    story = await happened(desk.api, desk.journal)
    answers: list[dict[str, Any]] = [
        {"status": 502, "content_type": "text/html", "body": "<h1>Bad Gateway</h1>"},
        {"status": 200, "content_type": "text/html", "body": "<h1>Please log in</h1>"},
    ]
    visit = await desk.browser.visit("about:blank")

    async def answer(route: Route) -> None:
        if answers:
            await route.fulfill(**answers[0])
        else:
            await route.continue_()

    await visit.page.route(f"**/status/{story.operation.id}", answer)
    await visit.page.goto(f"{desk.url}#/operations/{story.operation.id}")
    await visit.shows('[data-error="broken"]', "status 502")
    await visit.shows("#health", "answers with errors")
    try_now = visit.page.get_by_role("button", name="Try now")
    answers.pop(0)
    await try_now.click()
    await visit.shows('[data-error="broken"]', "not JSON")
    answers.pop(0)
    await try_now.click()
    await visit.shows(".glance", "Not started")
    assert await visit.page.locator("[data-error]").count() == 0
    assert await visit.page.locator("#health").is_hidden()


async def test_an_unreachable_api_is_said_and_what_is_known_stays(desk: ConsoleDesk) -> None:
    """The page keeps what it has, says that it is old, and goes on when the API is back."""
    story = await happened(desk.api, desk.journal)
    visit = await desk.browser.visit(f"{desk.url}#/operations/{story.operation.id}")
    await visit.shows(".glance", "Not started")
    await visit.page.context.set_offline(True)
    await visit.shows('[data-error="unreachable"]')
    await visit.shows("#health", "can't be reached")
    await visit.shows(".glance", "Not started")
    await visit.page.context.set_offline(False)
    await visit.page.locator("#health").wait_for(state="hidden")
    await visit.page.locator("[data-error]").wait_for(state="detached")


async def test_a_slow_api_is_said(desk: ConsoleDesk) -> None:
    """While the page waits, a line says so; when the answer has come, it goes."""
    story = await happened(desk.api, desk.journal)
    arrived, released = asyncio.Event(), asyncio.Event()
    visit = await desk.browser.visit("about:blank")

    async def hold(route: Route) -> None:
        arrived.set()
        await released.wait()
        await route.continue_()

    await visit.page.route(f"**/status/{story.operation.id}", hold)
    await visit.page.goto(f"{desk.url}#/operations/{story.operation.id}")
    await arrived.wait()
    await visit.shows(".loading")
    await visit.shows("#health", "The API is slow")
    released.set()
    await visit.shows(".glance", "Not started")
    await visit.page.locator("#health").wait_for(state="hidden")


async def test_the_keyboard_is_explained_and_works(desk: ConsoleDesk) -> None:
    """`?` lists the keys, `/` jumps to the search, Enter opens what it has, `g o` goes back, and the title follows."""
    story = await happened(desk.api, desk.journal)
    visit = await desk.browser.visit(desk.url)
    await visit.shows("h1", "Overview")
    await visit.page.keyboard.press("?")
    await visit.shows("#shortcuts", "Next row")
    await visit.page.keyboard.press("Escape")
    await visit.page.keyboard.press("/")
    await visit.page.keyboard.type(story.operation.id)
    await visit.page.keyboard.press("Enter")
    await visit.shows(".glance", "Not started")
    await visit.page.keyboard.press("g")
    await visit.page.keyboard.press("o")
    await visit.shows("h1", "Operations")


async def test_the_theme_follows_the_system_or_the_reader(desk: ConsoleDesk) -> None:
    """Dark where the system is dark; `t` chooses, and the choice outlives the page."""

    async def ground() -> int:
        colour = await visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return sum(int(number) for number in colour.removeprefix("rgb(").rstrip(")").split(","))

    visit = await desk.browser.visit(desk.url, color_scheme="dark")
    await visit.shows("h1", "Overview")
    assert await ground() < 200
    await visit.page.keyboard.press("t")
    assert await ground() > 600
    await visit.page.reload()
    await visit.shows("h1", "Overview")
    assert await ground() > 600


async def test_axe_finds_nothing(desk: ConsoleDesk) -> None:
    """On the start, and on the list of keys."""
    visit = await desk.browser.visit(desk.url, bypass_csp=True)
    await visit.shows("h1", "Overview")
    await visit.has_no_breaches()
    await visit.page.keyboard.press("?")
    await visit.shows("#shortcuts")
    await visit.has_no_breaches()


async def test_without_credentials_only_the_files_are_served(desk: ConsoleDesk) -> None:
    """A service that asks for credentials serves the console to everybody, and nothing else: the page has no data."""
    async with serving(desk.broker.url, auth=("keys",)) as api, httpx.AsyncClient(base_url=api.url) as http:
        assert (await http.get("/console")).status_code == 200
        assert (await http.get("/console/core/client.js")).status_code == 200
        for path in ("/console/nothing.js", "/docs", "/openapi.json", "/status/one"):
            assert (await http.get(path)).status_code == 401, path


async def test_large_and_odd_json_is_shown_as_it_is(desk: ConsoleDesk) -> None:
    """The page's reader of JSON changes no character of a value, whatever the nesting, the escapes and the spaces."""
    visit = await desk.browser.visit(desk.url)
    texts = [
        r'{"a":{"data":[1,{"b":"}\"]"}]},"data":{"x" : -1.50e+3 ,"y":"\\"},"z":null}',
        '{"data":[]}',
        '{"data":"\\""}',
    ]
    wanted = [r'{"x" : -1.50e+3 ,"y":"\\"}', "[]", '"\\""']
    found = await visit.page.evaluate(
        "async (texts) => { const { members } = await import('./console/core/json_text.js');"
        " return texts.map((text) => members(text).get('data')); }",
        texts,
    )
    assert found == wanted
