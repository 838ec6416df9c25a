"""The console's list and overview in a real browser, on a real index of ten thousand rows."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import pytest
import pytest_asyncio

from opstream_index.filters.fields import FIELDS
from opstream_index.operation_row import OperationRow, row_of
from opstream_schemas.events import Failed, OperationError
from tests.support.api.service import Api, serving
from tests.support.console.browser import Visit
from tests.support.console.stories import began, happened
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import row

from .conftest import ConsoleDesk

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="module")]

ROWS: Final = 10_000
TO_THE_END: Final = """(element) => {
  element.scrollTop = element.scrollHeight;
  return new Promise(requestAnimationFrame);
}"""
"""Scrolls as far as there are rows, and waits until they are painted."""


class ListDesk(NamedTuple):
    """A service with an index, and a browser."""

    desk: ConsoleDesk
    api: Api
    index: FilledIndex

    async def visit(self, address: str, **context: object) -> Visit:
        """Open a page of the console."""
        return await self.desk.browser.visit(f"{self.api.url}/console{address}", **context)


@functools.cache
def now() -> int:
    """The moment of the first call, in microseconds since 1970: of the fixture, not of the import."""
    return time.time_ns() // 1000


def listed(number: int, **changes: object) -> OperationRow:
    """A row that ended a second after its request, `number` seconds ago."""
    created = now() - number * 1_000_000
    return row(
        number,
        **{
            "created_at": created,
            "started_at": created + 500_000,
            "finished_at": created + 1_000_000,
            "own_id": f"op-{number}",
            "resource_id": str(number),
            "caller": "ann" if number % 2 else "bob",
            "labels": '{"team":"press"}',
            **changes,
        },
    )


def failed(number: int, code: str, message: str) -> OperationRow:
    """One that failed."""
    return listed(number, status="Failed", code=code, message=message, action="bind")


def odd_rows() -> tuple[OperationRow, ...]:
    """The few that are not like the others."""
    return (
        failed(5, "Timeout", "the binder did not answer"),
        failed(15, "Timeout", "the binder did not answer"),
        failed(25, "PaperJam", "<b>press 2</b> is jammed"),
        listed(35, status="Running", finished_at=None, action="fold"),
        listed(45, status="NotStarted", started_at=None, finished_at=None, action="fold"),
        listed(55, status="Canceled"),
        listed(10_805, status="Failed", code="Late", message="", finished_at=now() - 60_000_000, action="scan"),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(whole_desk: ConsoleDesk, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ListDesk]:
    """An index of ten thousand rows, a few of which are not like the others."""
    rows = {one.id: one for one in (*(listed(10 * number) for number in range(ROWS)), *odd_rows())}
    index = FilledIndex(tmp_path_factory.mktemp("index"), rows.values())
    index.complete_until(now())
    async with serving(whole_desk.broker.url, index=index.location) as api:
        yield ListDesk(whole_desk, api, index)
    index.close()


@pytest_asyncio.fixture(loop_scope="module")
async def lists(filled: ListDesk) -> AsyncIterator[ListDesk]:
    """The same for one test: its sessions are closed after it."""
    yield filled
    await filled.desk.browser.forget()


async def counted(visit: Visit, number: int) -> None:
    """Wait until the page counts so many; beside the number it may say how many seconds the index is behind."""
    await visit.page.locator(".count").filter(has_text=re.compile(rf"^{number}(?: ·|$)")).wait_for()


async def first_rows(visit: Visit, count: int) -> list[str]:
    """The texts of the first rows."""
    await visit.shows(".grid-rows .grid-row")
    texts = await visit.page.locator(".grid-rows .grid-row").all_inner_texts()
    return [" ".join(text.split()) for text in texts[:count]]


async def test_ten_thousand_rows_are_a_few_elements(lists: ListDesk) -> None:
    """The reader scrolls to the last one; each page is read once, and no more rows are elements than fit."""
    visit = await lists.visit("#/operations")
    await visit.shows(".grid-rows .grid-row")
    scroller = visit.page.locator(".grid-scroll")
    while "and more" in await visit.text(".count"):
        await scroller.evaluate(TO_THE_END)
        assert await visit.page.locator(".grid-rows .grid-row").count() < 60
    await scroller.evaluate(TO_THE_END)
    assert (await visit.text(".count")).startswith(f"{ROWS + len(odd_rows()):,}")
    await visit.shows(".grid-rows", str((ROWS - 1) * 10))
    pages = [url for _, url in visit.requests if "cursor=" in url]
    assert len(pages) == len(set(pages)) == 10
    assert visit.complaints == []


async def test_a_filter_is_completed_word_by_word(lists: ListDesk) -> None:
    """Fields, operators and values are offered where they fit; Enter applies the filter and the address has it."""
    visit = await lists.visit("#/operations")
    await visit.shows(".grid-rows .grid-row")
    await visit.page.keyboard.press("f")
    for typed, offered in (
        ("sta", "status"),
        ("e", "eq"),
        ("Fa", "'Failed'"),
        ("an", "and"),
        ("error/c", "error/code"),
    ):
        await visit.page.keyboard.type(typed)
        await visit.shows("#filter-options li", offered)
        await visit.page.keyboard.press("Tab")
    await visit.page.keyboard.type("eq 'PaperJam'")
    await visit.page.keyboard.press("Enter")
    await counted(visit, 1)
    (found,) = await first_rows(visit, 9)
    assert found.startswith("Failed op-25 book:bind 25 ann ")
    assert found.endswith(" 500 ms PaperJam <b>press 2</b> is jammed")
    assert visit.page.url.endswith("?filter=status+eq+%27Failed%27+and+error%2Fcode+eq+%27PaperJam%27")
    await visit.page.reload()
    await counted(visit, 1)


async def test_the_completion_knows_the_fields_of_the_service(lists: ListDesk) -> None:
    """No field and no operator more or less."""
    visit = await lists.visit("#/operations")
    found = await visit.page.evaluate(
        "async () => Object.fromEntries(Object.entries((await import('./console/core/filter_completion.js')).FIELDS)"
        ".map(([name, field]) => [name, field.operators]))"
    )
    known = {
        name: {operator.value for operator in field.operators} for name, field in FIELDS.items() if name != "message"
    }
    assert {name: set(operators) for name, operators in found.items()} == known


async def test_a_wrong_filter_is_said_with_what_is_allowed(lists: ListDesk) -> None:
    """The API's own words stand below the bar, and nothing is asked again before the filter has changed."""
    visit = await lists.visit("#/operations?filter=colour+eq+%27red%27", has_clock=True)
    await visit.shows("#filter-problem", "error/code")
    before = len(visit.requests)
    await visit.page.clock.run_for(60_000)
    assert len(visit.requests) == before
    await visit.page.get_by_role("button", name="Running", exact=True).click()
    await visit.shows(".grid-rows .grid-row", "book:fold")
    assert await visit.text("#filter-problem") == ""


async def test_new_operations_appear_and_keys_open_them(lists: ListDesk) -> None:
    """At the top of the list, at the next look; `j` and Enter lead to the page of the first."""
    visit = await lists.visit("#/operations?filter=kind+eq+%27book%3Acut%27", has_clock=True)
    await visit.shows(".empty", "No operation fits this filter")
    lists.index.write(listed(-1, action="cut"), listed(-2, action="cut"))
    await visit.page.clock.run_for(6_000)
    await counted(visit, 2)
    await visit.page.keyboard.press("j")
    await visit.page.keyboard.press("j")
    await visit.page.keyboard.press("Enter")
    await visit.page.wait_for_url("**/console#/operations/op--1")


async def test_the_overview_counts(lists: ListDesk) -> None:
    """What runs, waits and failed in the last hour, by action and code, each with its list behind it.

    What was requested three hours ago and failed a minute ago is among it.
    """
    visit = await lists.visit("#/overview")
    await visit.shows('[aria-label="Now"]')
    now = await visit.text('[aria-label="Now"]')
    assert re.match(
        r"Running 1 Waiting 1 Oldest that waits \d+ \S+ ago Ended per minute \S+ Failed 4 \(1\.1 %\)", now
    ), now
    assert await visit.text('[aria-label="Failures, by code"] ol') == "Timeout 2 PaperJam 1 Late 1"
    queues = await visit.text('[aria-label="Open, by action"] ol')
    assert re.fullmatch(r"book:fold the oldest waits for \d+ .* 1 running · 1 waiting", queues), queues
    times = await visit.text('[aria-label="Slowest actions"] tbody')
    assert "book:bind 500 ms 500 ms 3 3" in times
    bars = await visit.page.locator(".chart rect.part-Failed").count()
    assert bars >= 1
    await visit.page.get_by_role("link", name="Timeout").click()
    await counted(visit, 2)


async def test_a_service_without_an_index_says_how_to_switch_it_on(lists: ListDesk) -> None:
    """In the list and in the overview; an operation opens by its id all the same."""
    for address in ("#/operations", "#/overview"):
        visit = await lists.desk.browser.visit(f"{lists.desk.url}{address}")
        await visit.shows(".empty", "This service has no index")
        await visit.shows(".hint", "opstream projector --index")
        assert await visit.page.locator("[data-error]").count() == 0


async def test_all_of_a_filter_is_done_again(lists: ListDesk) -> None:
    """The count and the oldest are shown before anything is done, with the command; then the operation that does it is
    followed, and each has its follow-up. What is not there to be done again is said."""
    error = OperationError(code="OutOfPaper", message="there is no paper")
    stories = [
        await happened(lists.desk.api, lists.desk.journal, (0.1, began(1)), (0.2, Failed(error=error))) for _ in "ab"
    ]
    rows = [row_of(story.operation) for story in stories]
    lists.index.write(*(one._replace(labels='{"team":"again"}') for one in rows))
    lists.index.complete_until(now() + 3_600_000_000)
    visit = await lists.visit("#/operations?filter=label%2Fteam+eq+%27again%27")
    await visit.page.get_by_role("button", name="Cancel all…").click()
    await visit.shows("#toast", "there is nothing to cancel")
    await visit.page.get_by_role("button", name="Do all again…").click()
    await visit.shows("dialog[open]", "Do 2 operations again?")
    assert await visit.page.locator("dialog .sample li").count() == 2
    await visit.page.get_by_label("At most so many in a second").fill("20")
    await visit.page.locator("dialog .command summary").click()
    command = await visit.text("dialog .raw pre")
    assert command == (
        f"curl -sS -X POST '{lists.api.url}/status:retry?filter=label%2Fteam+eq+%27again%27&perSecond=20'"
    )
    await visit.page.get_by_role("button", name="Do them again").click()
    await visit.shows("h1", "operations:retry")
    await visit.shows('.glance [data-status="Succeeded"]')
    for story in stories:
        status = await lists.api.status(story.operation.id)
        assert (await lists.api.status(status.json()["retriedBy"])).json()["retryOf"] == story.operation.id
    assert visit.complaints == []


async def test_axe_finds_nothing(lists: ListDesk) -> None:
    """On the overview, and on the list with the completion open."""
    visit = await lists.visit("#/overview", bypass_csp=True)
    await visit.shows(".chart")
    await visit.has_no_breaches()
    await visit.page.goto(f"{lists.api.url}/console#/operations")
    await visit.shows(".grid-rows .grid-row")
    await visit.page.keyboard.press("f")
    await visit.has_no_breaches()
