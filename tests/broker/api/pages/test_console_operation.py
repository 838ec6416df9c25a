"""An operation's page in a real browser: what it shows of the status and the journal, live, and what it does."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from opstream_schemas.events import (
    Attached,
    Canceled,
    CancelRequested,
    Failed,
    OperationError,
    Progressed,
    RecordedEvent,
    Requested,
    Signaled,
    Succeeded,
)
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.status_monitor import WaitingReason
from tests.support.access.desk import serving_with_keys
from tests.support.api.prefix_proxy import behind
from tests.support.api.service import OperationStory
from tests.support.console.browser import Visit
from tests.support.console.stories import TIMES_OUT, asking, began, happened, retried, stepped
from tests.support.system.wait import eventually

from .conftest import ConsoleDesk

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="module")]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Does to the page what another tab in front of it does."""


async def opened(desk: ConsoleDesk, story: OperationStory, base: str = "", **context: Any) -> Visit:
    """The page of an operation, once it shows the history."""
    visit = await desk.browser.visit(f"{base or desk.url}#/operations/{story.operation.public_id}", **context)
    await visit.shows(".history .events > li")
    return visit


async def stored(desk: ConsoleDesk, story: OperationStory) -> list[RecordedEvent]:
    """What the journal has."""
    return list(await desk.journal.events(story.operation.id))


async def test_the_page_says_how_an_operation_went(desk: ConsoleDesk) -> None:
    """At a glance, its attempts with what became of them, its input and its result as they were written."""
    story = await happened(desk.api, desk.journal, *retried())
    visit = await opened(desk, story)
    assert await visit.text("h1") == "book:upload-start 42"
    glance = await visit.text(".glance")
    for words in ("Status Succeeded", "Waited 200 ms", "Ran 600 ms", "Paused 200 ms", "Attempts 2"):
        assert words in glance
    tracks = [" ".join(text.split()) for text in await visit.page.locator(".tracks > li").all_inner_texts()]
    assert tracks == ["Waiting 200 ms before it began", "Attempt 1 200 ms Failed 503", "Attempt 2 400 ms Succeeded"]
    assert '"weight": 1.50' in await visit.text('[aria-label="Result"]')
    assert '"id": 12345678901234567890' in await visit.text('[aria-label="Result"]')
    assert '"title": "Moby Dick"' in await visit.text('[aria-label="Input"]')
    assert visit.complaints == []


async def test_steps_and_sleeps(desk: ConsoleDesk) -> None:
    """The timeline has each step at its place, and an attempt that sleeps is no failure; the history names them."""
    story = await happened(desk.api, desk.journal, *stepped())
    visit = await opened(desk, story)
    tracks = [" ".join(text.split()) for text in await visit.page.locator(".tracks > li").all_inner_texts()]
    assert tracks == ["Waiting 200 ms before it began", "Attempt 1 300 ms Waits", "Attempt 2 300 ms Failed 503"]
    steps = visit.page.locator(".tracks [data-step]")
    assert [await one.get_attribute("data-step") for one in await steps.all()] == ["copy (7)", "ship"]
    rows = [" ".join(text.split()) for text in await visit.page.locator(".events summary").all_inner_texts()]
    for number, words in ((3, "Step done copy (7)"), (4, "Waits sleep, until 20"), (6, "Step failed ship: 503")):
        assert words in rows[number - 1]
    assert visit.complaints == []


async def test_files(desk: ConsoleDesk) -> None:
    """Each file that an action has added has a link to its bytes, with its size."""
    file = PayloadRef(uri=f"payload:op/{'a' * 32}", size=48_213, sha256="0" * 64)
    added = Attached(attempt=1, file_name="proof (1).pdf", media_type="application/pdf", payload=file)
    done = Succeeded(result=msgspec.Raw(b"1"))
    story = await happened(desk.api, desk.journal, (0.2, began(1)), (0.4, added), (0.6, done))
    visit = await opened(desk, story)
    link = visit.page.locator(".facts-panel a", has_text="proof (1).pdf")
    assert await link.get_attribute("href") == f"status/{story.operation.public_id}/payloads/{'a' * 32}"
    assert "48,213 bytes" in await visit.text(".facts-panel")
    assert visit.complaints == []


async def test_the_timeline_is_to_scale(desk: ConsoleDesk) -> None:
    """Each bar is as long, and begins where, its time says."""
    story = await happened(desk.api, desk.journal, *retried())
    visit = await opened(desk, story)
    lane = await visit.page.locator(".tracks .lane").first.bounding_box()
    assert lane is not None
    found = []
    for bar in await visit.page.locator(".tracks .bar").all():
        box = await bar.bounding_box()
        assert box is not None
        found.append((round((box["x"] - lane["x"]) / lane["width"], 2), round(box["width"] / lane["width"], 2)))
    assert found == [(0.0, 0.2), (0.2, 0.2), (0.4, 0.2), (0.6, 0.4)]


async def test_the_history_is_what_the_journal_stores(desk: ConsoleDesk) -> None:
    """Byte for byte, with the hashes that the browser has computed; and the chain is whole."""
    story = await happened(desk.api, desk.journal, *retried())
    visit = await opened(desk, story)
    await visit.shows('[data-chain="whole"]')
    events = await stored(desk, story)
    shown = await visit.page.locator(".history .raw pre").all_text_contents()
    assert [text.encode() for text in shown] == [event.stored for event in events]
    hashes = await visit.page.locator(".history .facts dd:first-of-type").all_text_contents()
    assert hashes == [event.digest for event in events]
    assert await visit.page.locator('[data-link="covered"]').count() == len(events) - 1


@pytest.mark.parametrize("position", [1, 4])
async def test_a_changed_byte_shows(desk: ConsoleDesk, position: int) -> None:
    """A proxy between browser and service changes one byte of one event. The page says which event that is."""
    story = await happened(desk.api, desk.journal, *retried())
    events = await stored(desk, story)
    victim = events[position - 1].stored
    changed = victim.replace(b'"source":"', b'"source":"X', 1) if b'"source":"' in victim else victim
    assert changed != victim

    def manipulate(path: str, body: bytes) -> bytes:
        return body.replace(victim, changed) if path.endswith("/events") else body

    with behind(desk.api.url, "/below", manipulate) as url:
        visit = await opened(desk, story, f"{url}/console")
        await visit.shows('[data-chain="broken"]', f"event {position} was changed after it had been stored")
        assert await visit.page.locator(".history li.bad").count() == 1
        assert await visit.page.locator('[data-chain="whole"]').count() == 0


async def test_a_removed_event_shows(desk: ConsoleDesk) -> None:
    """The one after it follows none that is there."""
    story = await happened(desk.api, desk.journal, *retried())

    def manipulate(path: str, body: bytes) -> bytes:
        frames = body.split(b"\n\n")
        kept = [frame for frame in frames if not frame.startswith(b"id: 3\n")]
        return b"\n\n".join(kept) if path.endswith("/events") else body

    with behind(desk.api.url, "/below", manipulate) as url:
        visit = await opened(desk, story, f"{url}/console")
        await visit.shows('[data-chain="broken"]', "Event 4 follows event 2")


async def test_it_follows_a_running_operation(desk: ConsoleDesk) -> None:
    """What is recorded appears without a reload, and once it has ended the page asks for nothing more."""
    story = await happened(desk.api, desk.journal)
    visit = await opened(desk, story, has_clock=True)
    await visit.shows('.glance [data-status="NotStarted"]')
    await story.append(began(1), Progressed(percent=40, message="folding <b>sheets</b>"))
    await visit.shows('.glance [data-status="Running"]')
    await visit.shows(".progress", "40 %")
    await visit.shows(".progress", "folding <b>sheets</b>")
    assert (await visit.page.title()).startswith("▶ book:upload-start 42")
    await story.append(Succeeded(result=msgspec.Raw(b"null")))
    await visit.shows('.glance [data-status="Succeeded"]')
    await visit.shows('.events [data-event="succeeded"]')
    before = len(visit.requests)
    await visit.page.clock.run_for(60_000)
    assert len(visit.requests) == before


async def test_a_hidden_page_asks_for_nothing(desk: ConsoleDesk) -> None:
    """Neither by its polls nor by its stream; visible again, it shows what has happened meanwhile."""
    story = await happened(desk.api, desk.journal, (0.0, began(1)))
    visit = await opened(desk, story, has_clock=True)
    await visit.shows('.glance [data-status="Running"]')
    assert len(desk.api.watchers) > 0
    await visit.page.evaluate(HIDE, True)

    async def is_left() -> bool:
        return len(desk.api.watchers) == 0

    await eventually(is_left, within=5)
    before = len(visit.requests)
    await visit.page.clock.run_for(60_000)
    assert len(visit.requests) == before
    await story.append(Progressed(percent=77))
    await visit.page.evaluate(HIDE, False)
    await visit.shows(".progress", "77 %")


async def test_cancel_asks_and_records_the_reason(desk: ConsoleDesk) -> None:
    """The dialog shows the request as curl would send it; its answer is on the page, its reason in the journal."""
    story = await happened(desk.api, desk.journal)
    visit = await opened(desk, story)
    await visit.page.keyboard.press("c")
    await visit.shows("dialog[open]", "Cancel this operation?")
    await visit.page.get_by_label("Reason").fill("wrong edition")
    await visit.page.get_by_text("The same from a shell").click()
    command = await visit.text("dialog .raw pre")
    assert command.startswith(f"curl -sS -X POST '{desk.api.url}/status/{story.operation.id}:cancel'")
    assert '{"reason":"wrong edition"}' in command
    await visit.page.get_by_role("button", name="Cancel the operation").click()
    await visit.shows('.glance [data-status="Canceled"]')
    await visit.shows('.events [data-event="canceled"]', "wrong edition")
    last = (await stored(desk, story))[-1].data
    assert isinstance(last, Canceled)
    assert last.reason == "wrong edition"
    assert visit.complaints == []


async def test_what_it_waits_for_is_sent(desk: ConsoleDesk) -> None:
    """A button names the signal; what does not fit is refused in the dialog, and what fits is recorded."""
    story = await happened(desk.api, desk.journal, *asking())
    visit = await opened(desk, story)
    await visit.shows('[aria-label="What it waits for"]', "Its action waits for the signal approval")
    await visit.page.get_by_role("button", name="Send approval…").click()
    await visit.shows("dialog[open]", "Send the signal approval?")
    await visit.has_no_breaches()
    await visit.page.get_by_label("Payload, as JSON").fill('{"approved":"perhaps"}')
    await visit.page.get_by_role("button", name="Send the signal").click()
    await visit.shows("dialog .callout", 'the value is not of type "boolean"')
    await visit.page.get_by_label("Payload, as JSON").fill('{"approved":true}')
    await visit.page.get_by_role("button", name="Send the signal").click()
    await visit.shows('.events [data-event="signaled"]', "approval")
    last = (await stored(desk, story))[-1].data
    assert isinstance(last, Signaled)
    assert (last.signal, bytes(last.payload)) == ("approval", b'{"approved":true}')
    assert last.request_id
    rows = [" ".join(text.split()) for text in await visit.page.locator(".events summary").all_inner_texts()]
    assert "Waits for the signal approval, until 20" in rows[2]


async def test_what_failed_is_done_again(desk: ConsoleDesk) -> None:
    """A button asks, and leads to the follow-up, whose page names the old operation; that one's then names it."""
    story = await happened(desk.api, desk.journal, (0.1, began(1)), (0.3, Failed(error=TIMES_OUT)))
    old, new = story.operation.id, f"{story.operation.id}-retry-1"
    visit = await opened(desk, story)
    await visit.page.get_by_role("button", name="Do it again…").click()
    await visit.shows("dialog[open]", "Do it again?")
    await visit.page.get_by_role("button", name="Begin the follow-up").click()
    await visit.page.wait_for_url(f"**#/operations/{new}")
    await visit.page.get_by_role("link", name=old, exact=True).click()
    await visit.page.get_by_role("link", name=new, exact=True).wait_for()
    assert len(await desk.journal.events(new)) == 1
    assert visit.complaints == []


async def test_escape_cancels_nothing(desk: ConsoleDesk) -> None:
    """Nor does "Not now"; the operation has one event afterwards."""
    story = await happened(desk.api, desk.journal)
    visit = await opened(desk, story)
    for leave in (visit.page.keyboard.press("Escape"), visit.page.get_by_role("button", name="Not now").click()):
        await visit.page.get_by_role("button", name="Cancel…").click()
        await visit.shows("dialog[open]")
        await leave
        await visit.page.locator("dialog").wait_for(state="detached")
    assert len(await stored(desk, story)) == 1


async def test_a_start_time_is_shown_with_the_wait(desk: ConsoleDesk) -> None:
    """Why it waits, until when, and in the timeline the time before that moment apart."""
    response = await desk.api.submit(headers={"Operation-Start-After": "600"})
    story = await OperationStory.of(desk.journal, response.json()["id"])
    visit = await opened(desk, story)
    await visit.shows('[aria-label="What it waits for"]', "Its start time has not come")
    await visit.shows(".facts", "Not before")
    assert await visit.page.locator(".tracks .bar.planned").count() == 1
    assert await visit.page.locator(".tracks .bar.queued").count() == 0


async def test_why_it_waits_comes_with_the_status(desk: ConsoleDesk) -> None:
    """Without a runner the page says so as soon as the service does, and what to start."""
    story = await happened(desk.api, desk.journal)
    visit = await opened(desk, story)
    await visit.shows('[data-reason="Runner"]', "No runner takes this action")
    await visit.shows('[data-reason="Runner"]', "Start a runner with --actions for book:upload-start")


async def test_every_reason_to_wait_has_its_words(desk: ConsoleDesk) -> None:
    """In `blockedBy`, or in `waitingFor` alone; a word of a later version is shown as it is."""
    visit = await desk.browser.visit(desk.url)
    titles = await visit.page.evaluate(
        "async (reasons) => { const { waitingText } = await import('./console/parts/advice.js');"
        " return reasons.flatMap((reason) => [{ blockedBy: { reason } }, { waitingFor: reason }])"
        ".map((monitor) => waitingText({ status: 'NotStarted', kind: 'book:print', ...monitor })[0]); }",
        [*WaitingReason, "Later"],
    )
    assert titles[-2:] == ["It waits: Later"] * 2
    assert not [title for title in titles[:-2] if title.startswith("It waits: ")]


async def test_an_error_says_what_to_do(desk: ConsoleDesk) -> None:
    """With its code, its message, and advice for opstream's own codes; a lost attempt is shown as lost."""
    error = OperationError(code="RunnerLost", message="runner runner-1 went silent in attempt 3")
    story = await happened(desk.api, desk.journal, (0.1, began(1)), (0.3, Failed(error=error)))
    visit = await opened(desk, story)
    text = await visit.text('[aria-label="Error"]')
    assert text.startswith("RunnerLost runner runner-1 went silent in attempt 3")
    assert "Look at the logs of the runners" in text
    await visit.shows(".tracks", "Lost")


async def test_what_an_operation_says_is_no_markup(desk: ConsoleDesk) -> None:
    """Neither in progress, nor in an error, a reason or a runner's name: nothing of it runs."""
    story = await happened(
        desk.api,
        desk.journal,
        (0.1, began(1, HOSTILE)),
        (0.2, Progressed(percent=5, message=HOSTILE)),
        (0.3, CancelRequested(by=HOSTILE, reason=HOSTILE)),
        (0.4, Failed(error=OperationError(code=HOSTILE, message=HOSTILE, target=HOSTILE))),
    )
    visit = await opened(desk, story)
    assert HOSTILE in await visit.page.locator('[aria-label="Error"] .message').inner_text()
    assert await visit.page.locator("main img, main script").count() == 0
    assert "owned" not in await visit.page.title()
    assert visit.complaints == []


async def test_with_credentials_the_chain_is_checked_too(desk: ConsoleDesk) -> None:
    """There the events are shown under the client's own id; the page asks for credentials once, and keeps them from
    URLs and from the command that it shows. What is revoked is asked for again.
    """
    async with serving_with_keys(desk.broker, desk.link) as door:
        ann = await door.caller("acme", "ann", "submit", "read", "cancel")
        assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202
        story = await OperationStory.of(desk.journal, door.ids.stored_id("acme", "one"))
        await story.append(began(1), Progressed(percent=5))
        visit = await desk.browser.visit(f"{door.api.url}/console#/operations/one")
        await visit.shows("dialog[open]", "Your credentials")
        await visit.page.get_by_label("API key or token").fill("ops_wrong_key")
        await visit.page.get_by_role("button", name="Continue").click()
        await visit.shows("dialog .callout", "does not take these")
        await visit.page.get_by_label("API key or token").fill(ann.key)
        await visit.page.get_by_role("button", name="Continue").click()
        await visit.shows('[data-chain="whole"]')
        await visit.shows(".facts", "ann of acme")
        await visit.page.get_by_role("button", name="Cancel…").click()
        await visit.page.get_by_text("The same from a shell").click()
        command = await visit.text("dialog .raw pre")
        assert '-H "Authorization: Bearer $OPSTREAM_KEY"' in command
        await visit.page.keyboard.press("Escape")
        assert ann.key not in await visit.page.content()
        assert not [url for _, url in visit.requests if ann.key in url]
        await door.revoke(ann)
        await visit.shows("dialog[open]", "The API does not take the credentials of this tab any more")


async def test_credentials_without_the_scope_are_said_so(desk: ConsoleDesk) -> None:
    """A 403 names the scope, and the page offers to enter others."""
    async with serving_with_keys(desk.broker, desk.link) as door:
        ann = await door.caller("acme", "bea", "submit")
        visit = await desk.browser.visit(f"{door.api.url}/console#/operations/one")
        await visit.page.get_by_label("API key or token").fill(ann.key)
        await visit.page.get_by_role("button", name="Continue").click()
        await visit.shows('[data-error="forbidden"]', "read")
        await visit.shows('[data-error="forbidden"] button', "Enter credentials")


async def test_axe_finds_nothing(desk: ConsoleDesk) -> None:
    """On the page of an operation with an error, attempts and an open event."""
    error = OperationError(code="InvalidResult", message="the result has a member that is not declared")
    story = await happened(desk.api, desk.journal, *retried()[:-1], (1.0, Failed(error=error)))
    visit = await opened(desk, story, bypass_csp=True)
    await visit.shows('[data-chain="whole"]')
    await visit.page.locator(".events summary").first.click()
    await visit.has_no_breaches()


async def test_rows_are_reached_by_keys(desk: ConsoleDesk) -> None:
    """`j` and `k` move through the events, Enter opens one."""
    story = await happened(desk.api, desk.journal, *retried())
    visit = await opened(desk, story)
    for key in "jjk":
        await visit.page.keyboard.press(key)
    await visit.page.keyboard.press("Enter")
    await visit.shows('[data-event="requested"] details[open]')
    assert await visit.page.locator("details[open]").count() == 1
    requested = (await stored(desk, story))[0].data
    assert isinstance(requested, Requested)
    assert re.search(requested.request_hash, await visit.text("details[open] pre"))
