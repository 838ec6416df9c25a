"""Canceling on a real broker without a runner: the tests append a runner's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import pytest

from opstream_journal import Connection, Journal, VersionConflict, announce_action
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    Requested,
    Started,
    Succeeded,
)
from opstream_schemas.operation.state import Status
from opstream_schemas.text import TEXT_LIMIT
from tests.support.api.service import JSON, Api, OperationStory, failure, in_a_second, post, serving, spec, started
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

SUCCEEDED = Succeeded(result=msgspec.Raw(b"{}"))


class Unknown(EventData, frozen=True, kw_only=True):
    """An event of a later version."""

    name: ClassVar[str] = "progressed"
    type: ClassVar[str] = "opstream.action.paused.v1"


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec(retry_after=2))
    async with serving(broker.url) as api:
        yield api


async def submitted(api: Api, journal: Journal, *datas: EventData) -> OperationStory:
    """A new operation."""
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await story.append(*datas)
    return story


async def recorded(journal: Journal, story: OperationStory) -> list[EventData | None]:
    """Return the names of an operation's events."""
    return [event.data for event in await journal.events(story.operation.id)]


async def test_what_has_not_started_is_canceled_at_once(api: Api, journal: Journal) -> None:
    """The response is final, the reason is stored, and nothing more happens."""
    story = await submitted(api, journal)
    answer = await api.cancel(story.operation.id, {"reason": "never mind"})
    assert (answer.status_code, answer.json()["status"]) == (200, "Canceled")
    assert "Retry-After" not in answer.headers
    first, last = await recorded(journal, story)
    assert isinstance(first, Requested)
    assert last == Canceled(reason="never mind")
    assert (await api.status(story.operation.id)).json() == answer.json()


async def test_what_runs_is_asked_to_stop(api: Api, journal: Journal) -> None:
    """It is Running until the runner reports that it has stopped."""
    story = await submitted(api, journal, started())
    answer = await api.cancel(story.operation.id, {"reason": "too slow"})
    assert (answer.status_code, answer.json()["status"], answer.headers["Retry-After"]) == (200, "Running", "2")
    assert answer.json()["cancelRequested"] is True
    assert (await api.status(story.operation.id)).json() == answer.json()
    assert (await recorded(journal, story))[-1] == CancelRequested(reason="too slow")
    await (await OperationStory.of(journal, story.operation.id)).append(Canceled(reason="too slow"))
    ended = (await api.status(story.operation.id)).json()
    assert ended["status"] == "Canceled"
    assert "cancelRequested" not in ended


async def test_between_attempts_it_is_canceled_at_once(api: Api, journal: Journal) -> None:
    """No attempt runs, so none has to stop."""
    waits = AttemptFailed(attempt=1, error=failure(), retry_at=in_a_second(), counted=True)
    story = await submitted(api, journal, started(), waits)
    assert (await api.cancel(story.operation.id)).json()["status"] == "Canceled"


@pytest.mark.parametrize("begun", [(), (started(),)])
async def test_asking_again_changes_nothing(api: Api, journal: Journal, begun: tuple[Started, ...]) -> None:
    """The first cancel request counts; all get 200."""
    story = await submitted(api, journal, *begun)
    answers = await asyncio.gather(*(api.cancel(story.operation.id, {"reason": str(n)}) for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await recorded(journal, story)) == 2 + len(begun)


@pytest.mark.parametrize("end", [SUCCEEDED, Failed(error=failure())])
async def test_what_has_ended_is_not_canceled(api: Api, journal: Journal, end: Succeeded | Failed) -> None:
    """409, and nothing is stored."""
    story = await submitted(api, journal, started(), end)
    answer = await api.cancel(story.operation.id)
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (409, "OperationFinished")
    assert answer.json()["error"]["code"] == "OperationFinished"
    assert len(await recorded(journal, story)) == 3


async def test_a_canceled_one_stays_so(api: Api, journal: Journal) -> None:
    """200, since the client has what it asked for."""
    story = await submitted(api, journal, Canceled(reason="before"))
    answer = await api.cancel(story.operation.id, {"reason": "after"})
    assert (answer.status_code, answer.json()["status"]) == (200, "Canceled")
    assert (await recorded(journal, story))[-1] == Canceled(reason="before")


async def test_cancel_races_success(api: Api, journal: Journal) -> None:
    """Exactly one is first, and each response says which."""
    seen = set()
    for _ in range(40):
        story = await submitted(api, journal, started())
        answer, _ = await asyncio.gather(api.cancel(story.operation.id), _succeed(journal, story))
        events = await recorded(journal, story)
        if answer.status_code == 200:
            assert answer.json()["status"] == "Running"
            assert isinstance(events[2], CancelRequested)
        else:
            assert answer.json()["error"]["code"] == "OperationFinished"
            assert len(events) == 3
        assert isinstance(events[-1], Succeeded)
        assert (await api.status(story.operation.id)).json()["status"] == Status.SUCCEEDED
        seen.add(answer.status_code)
    assert seen <= {200, 409}


async def _succeed(journal: Journal, story: OperationStory) -> None:
    try:
        await story.append(SUCCEEDED)
    except VersionConflict:
        await (await OperationStory.of(journal, story.operation.id)).append(SUCCEEDED)


@pytest.mark.parametrize(
    ("body", "status", "code", "target"),
    [
        (b'{"reason": 7}', 400, "InvalidInput", "reason"),
        (b'{"reson": "x"}', 400, "InvalidInput", None),
        (b'"why"', 400, "InvalidInput", None),
        (b"{", 400, "InvalidInput", None),
        (b"\xff", 400, "InvalidInput", None),
        (b" " * (4 * 1024 * 1024 + 1), 413, "PayloadTooLarge", None),
    ],
)
async def test_an_invalid_body(
    api: Api, journal: Journal, body: bytes, status: int, code: str, target: str | None
) -> None:
    """It is refused, and nothing is canceled."""
    story = await submitted(api, journal)
    path = f"/status/{story.operation.id}:cancel"
    answer = await api.client.post(path, content=body, headers={"Content-Type": JSON})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"].get("target") == target
    assert len(await recorded(journal, story)) == 1


async def test_a_body_of_another_type(api: Api, journal: Journal) -> None:
    """The body is JSON or empty."""
    story = await submitted(api, journal)
    path = f"/status/{story.operation.id}:cancel"
    answer = await api.client.post(path, content=b"why", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UnsupportedMediaType")


@pytest.mark.parametrize("body", [None, {}, {"reason": ""}])
async def test_a_reason_is_optional(api: Api, journal: Journal, body: Any) -> None:
    """No body, an empty one, an empty reason."""
    story = await submitted(api, journal)
    assert (await api.cancel(story.operation.id, body)).status_code == 200
    assert (await recorded(journal, story))[-1] == Canceled()


async def test_a_long_reason_is_cut(api: Api, journal: Journal) -> None:
    """An event's texts have a limit."""
    story = await submitted(api, journal)
    assert (await api.cancel(story.operation.id, {"reason": "x" * 10_000})).status_code == 200
    last = (await recorded(journal, story))[-1]
    assert isinstance(last, Canceled)
    assert len(last.reason.encode()) == TEXT_LIMIT


async def test_what_is_not_there(api: Api) -> None:
    """Unknown operations, invalid ids, other verbs, unknown parameters."""
    for operation_id in ("unknown", "*", "a.b", ""):
        answer = await api.cancel(operation_id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "OperationNotFound"), operation_id
    other = await api.client.post("/status/1:pause")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "NotFound")
    typo = await api.client.post("/status/1:cancel?now=1")
    assert (typo.status_code, typo.json()["error"]["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/status/1:cancel", "POST"),
        ("PUT", "/status/1:cancel", "POST"),
        ("OPTIONS", "/status/1:cancel", "POST"),
        ("POST", "/status/1", "GET, HEAD, DELETE"),
        ("OPTIONS", "/status/1", "GET, HEAD, DELETE"),
        ("POST", "/status/1/events", "GET, HEAD"),
        ("OPTIONS", "/status/1/events", "GET, HEAD"),
    ],
)
async def test_methods(api: Api, method: str, path: str, allow: str) -> None:
    """Each path names its methods."""
    answer = await api.client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
    assert answer.json()["error"]["code"] == "MethodNotAllowed"


async def test_what_this_version_does_not_know_is_not_decided_upon(api: Api, journal: Journal) -> None:
    """A later version's event may mean anything, so the cancel request is refused, not appended after it."""
    story = await submitted(api, journal, started())
    await story.record(Unknown())
    answer = await api.cancel(story.operation.id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "InternalError")
    assert len(await recorded(journal, story)) == 3


async def test_without_a_broker(api: Api, broker: Broker, journal: Journal) -> None:
    """503 with `Retry-After`; a retry once the broker is back succeeds."""
    story = await submitted(api, journal)
    broker.stop()
    answer = await api.cancel(story.operation.id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "JournalUnavailable")
    assert answer.headers["Retry-After"] == "1"


async def test_a_bodys_end_that_never_comes(api: Api, journal: Journal) -> None:
    """A client that disconnects in the middle of its request cancels nothing."""
    story = await submitted(api, journal)
    request = post(f"/status/{story.operation.id}:cancel", b'{"reason": "half"}', f"Content-Type: {JSON}")
    async with api.connection() as (_, writer):
        writer.write(request[:-4])
        await writer.drain()
    assert (await api.status(story.operation.id)).json()["status"] == "NotStarted"
