"""Signals to operations on a real broker without a runner: the tests append a runner's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from opstream import AsyncOperationsClient, InvalidRequest, RequestRefused
from opstream.cli.app import main
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Canceled, EventData, Signaled, SignalWait, Succeeded, WaitBegun
from opstream_schemas.signals.signal_book import MAX_PAYLOAD
from tests.support.api.service import JSON, Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

SENT = "Tue, 24 Nov 2026 08:00:00 GMT"


class Approval(msgspec.Struct, forbid_unknown_fields=True):
    """What is waited for."""

    approved: bool
    count: int = 0


SCHEMA = msgspec.Raw(msgspec.json.encode(msgspec.json.schema(Approval)))


def waiting(name: str = "approval", *, approvers: int = 1, not_requester: bool = False) -> WaitBegun:
    """The event of a wait, as a runner records it."""
    wait = SignalWait(schema=SCHEMA, approvers=approvers, not_requester=not_requester)
    return WaitBegun(attempt=1, wait=name, until=datetime.now(UTC) + timedelta(hours=1), signal=wait)


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def submitted(api: Api, journal: Journal, *datas: EventData) -> OperationStory:
    """A new operation."""
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await story.append(*datas)
    return story


async def send(
    api: Api, operation_id: str, body: Any, name: str = "approval", key: str = "", **headers: str
) -> httpx.Response:
    """POST a signal."""
    sent = {"Content-Type": JSON, **headers}
    if key:
        sent |= {"Repeatability-Request-ID": key, "Repeatability-First-Sent": SENT}
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return await api.client.post(f"/status/{operation_id}:signal/{name}", content=content, headers=sent)


async def signals(journal: Journal, operation_id: str) -> list[tuple[str, Any]]:
    """The signals that are recorded, in order."""
    events = await journal.events(operation_id)
    return [
        (data.signal, msgspec.json.decode(data.payload)) for one in events if isinstance(data := one.data, Signaled)
    ]


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the error's code."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_signal_reaches_the_wait(api: Api, journal: Journal) -> None:
    """It is recorded as an event, its sender is told, and the status says so before and after."""
    story = await submitted(api, journal, started(), waiting())
    before = (await api.status(story.operation.id)).json()
    assert (before["status"], before["waitingFor"]) == ("Running", "Signal")
    awaited = before["blockedBy"]["signal"]
    assert (awaited["name"], awaited["schema"]) == ("approval", msgspec.json.decode(SCHEMA))
    assert awaited["url"] == f"{api.url}/status/{story.operation.id}:signal/approval"
    answer = await api.client.post(awaited["url"], json={"approved": True})
    assert (answer.status_code, answer.headers["Signal-State"]) == (200, "Delivered")
    assert answer.json()["status"] == "Running"
    assert answer.json().get("blockedBy") is None
    assert await signals(journal, story.operation.id) == [("approval", {"approved": True})]
    after = (await api.status(story.operation.id)).json()
    assert after.get("waitingFor") != "Signal"
    assert "retryAt" not in after


async def test_one_that_comes_first_is_kept(api: Api, journal: Journal) -> None:
    """Before the wait, and before the first attempt, it is recorded and shown; the wait has it with its first event."""
    story = await submitted(api, journal)
    operation_id = story.operation.id
    answer = await send(api, operation_id, {"approved": True})
    assert (answer.status_code, answer.headers["Signal-State"]) == (200, "Kept")
    assert (await api.status(operation_id)).json()["keptSignals"] == ["approval"]
    story = await OperationStory.of(journal, operation_id)
    await story.append(started(), waiting())
    assert story.operation.has_its_signal
    assert "keptSignals" not in (await api.status(operation_id)).json()


@pytest.mark.parametrize(
    ("body", "target"),
    [({"approved": "yes"}, "approved"), ({}, "approved"), ({"approved": True, "x": 1}, "x"), (b"{", ""), ("yes", "")],
)
async def test_what_does_not_fit_is_refused(api: Api, journal: Journal, body: Any, target: str) -> None:
    """A payload that is not of the awaited type leaves no event, and its sender learns what is wrong."""
    story = await submitted(api, journal, started(), waiting())
    answer = await send(api, story.operation.id, body)
    assert code(answer) == (400, "InvalidInput")
    assert answer.json()["error"].get("target", "") == target
    assert await signals(journal, story.operation.id) == []


async def test_whole_numbers_are_recorded_as_such(api: Api, journal: Journal) -> None:
    """As of an input: what is a whole number to JSON Schema is recorded so that the runner decodes it."""
    story = await submitted(api, journal, started(), waiting())
    answer = await send(api, story.operation.id, b'{"approved":true,"count":2.0}')
    assert answer.status_code == 200
    events = await journal.events(story.operation.id)
    assert isinstance(data := events[-1].data, Signaled)
    assert msgspec.json.decode(data.payload, type=Approval) == Approval(approved=True, count=2)


async def test_a_repeated_request_is_one_signal(api: Api, journal: Journal) -> None:
    """The same Repeatability headers are the same signal, at once, later, and after the wait and operation ended."""
    story = await submitted(api, journal, started(), waiting())
    operation_id = story.operation.id
    answers = await asyncio.gather(*(send(api, operation_id, {"approved": True}, key="k1") for _ in range(10)))
    assert {one.status_code for one in answers} == {200}
    assert {one.headers["Repeatability-Result"] for one in answers} == {"accepted"}
    assert {one.headers["Signal-State"] for one in answers} == {"Delivered"}
    story = await OperationStory.of(journal, operation_id)
    await story.append(started(2, ticket=9))
    assert (await send(api, operation_id, {"approved": True}, key="k1")).status_code == 200
    await story.append(Succeeded(result=msgspec.Raw(b"{}")))
    assert (await send(api, operation_id, {"approved": True}, key="k1")).status_code == 200
    assert len(await signals(journal, operation_id)) == 1


async def test_an_id_is_for_one_signal(api: Api, journal: Journal) -> None:
    """Another payload with the same headers is refused, and half a pair is, too."""
    story = await submitted(api, journal)
    operation_id = story.operation.id
    assert (await send(api, operation_id, {"approved": True}, key="k1")).status_code == 200
    other = await send(api, operation_id, {"approved": False}, key="k1")
    assert code(other) == (400, "RequestIdReused")
    assert other.headers["Repeatability-Result"] == "rejected"
    named = await send(api, operation_id, {"approved": True}, name="payment", key="k1")
    assert code(named) == (400, "RequestIdReused")
    half = await send(api, operation_id, {}, **{"Repeatability-Request-ID": "k2"})
    assert code(half) == (400, "InvalidHeader")
    assert len(await signals(journal, operation_id)) == 1


async def test_two_at_once_are_one_answer(api: Api, journal: Journal) -> None:
    """Of many that race for one wait one is delivered, and the senders of all others are told that it came too late."""
    story = await submitted(api, journal, started(), waiting())
    answers = await asyncio.gather(*(send(api, story.operation.id, {"approved": True}) for _ in range(8)))
    assert sorted(one.status_code for one in answers) == [200] + [409] * 7
    assert {code(one) for one in answers if one.status_code == 409} == {(409, "SignalTooLate")}
    assert len(await signals(journal, story.operation.id)) == 1


async def test_after_the_wait_it_is_too_late(api: Api, journal: Journal) -> None:
    """What nothing will ever take is refused, and not kept in silence."""
    story = await submitted(api, journal, started(), waiting(), started(2, ticket=9))
    assert code(await send(api, story.operation.id, {"approved": True})) == (409, "SignalTooLate")
    assert (await send(api, story.operation.id, {"approved": True}, name="payment")).status_code == 200
    await (await OperationStory.of(journal, story.operation.id)).append(Canceled())
    assert code(await send(api, story.operation.id, {}, name="payment2")) == (409, "OperationFinished")


async def test_a_wait_that_begins_meanwhile_counts(api: Api, journal: Journal) -> None:
    """A payload is checked by what the operation waits for when it is stored, also if that began a moment ago."""
    story = await submitted(api, journal)
    operation_id = story.operation.id
    await api.status(operation_id)  # the cache has it as not started
    await story.append(started(), waiting())
    assert code(await send(api, operation_id, {"approved": "no"})) == (400, "InvalidInput")
    assert await signals(journal, operation_id) == []


@pytest.mark.parametrize("wait", [waiting(approvers=2), waiting(not_requester=True)], ids=["approvers", "requester"])
async def test_nobody_approves_without_authentication(api: Api, journal: Journal, wait: WaitBegun) -> None:
    """Where callers prove nothing, nobody can be told from the requester, or from another approver."""
    story = await submitted(api, journal, started(), wait)
    answer = await send(api, story.operation.id, {"approved": True})
    assert code(answer) == (403, "SenderNotAllowed")
    assert await signals(journal, story.operation.id) == []


async def test_the_size_is_limited(api: Api, journal: Journal) -> None:
    """A payload over the limit is refused before it is read whole."""
    story = await submitted(api, journal)
    fits = b'"' + b"x" * (MAX_PAYLOAD - 2) + b'"'
    assert (await send(api, story.operation.id, fits)).status_code == 200
    assert code(await send(api, story.operation.id, fits[:-1] + b'x"')) == (413, "PayloadTooLarge")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/status/{}:signal/approval", (405, "MethodNotAllowed")),
        ("OPTIONS", "/status/{}:signal/approval", (405, "MethodNotAllowed")),
        ("POST", "/status/{}:signal", (404, "NotFound")),
        ("POST", "/status/{}:signal/", (404, "NotFound")),
        ("POST", "/status/{}:signal/a/b", (404, "NotFound")),
        ("POST", "/status/{}:signal/a%20b", (404, "NotFound")),
        ("POST", "/status/{}:signal/a:b", (404, "NotFound")),
        ("POST", "/status/{}:signals/approval", (404, "NotFound")),
        ("POST", "/status/{}/approval", (404, "NotFound")),
        ("POST", "/status/{}:signal/" + "x" * 65, (404, "NotFound")),
        ("POST", "/status/unknown:signal/approval", (404, "OperationNotFound")),
        ("POST", "/status/{}:signal/approval?a=1", (400, "InvalidParameter")),
    ],
)
async def test_paths(api: Api, journal: Journal, method: str, path: str, expected: tuple[int, str]) -> None:
    """The path of a signal has one spelling, and one method."""
    story = await submitted(api, journal)
    answer = await api.client.request(method, path.format(story.operation.id), headers={"Content-Type": JSON})
    assert code(answer) == expected
    assert await signals(journal, story.operation.id) == []


async def test_a_body_needs_its_type(api: Api, journal: Journal) -> None:
    """As of a submit."""
    story = await submitted(api, journal)
    answer = await api.client.post(f"/status/{story.operation.id}:signal/approval", content=b"{}")
    assert code(answer) == (415, "UnsupportedMediaType")
    assert (await api.client.post(f"/status/{story.operation.id}:signal/approval")).status_code == 200
    assert await signals(journal, story.operation.id) == [("approval", {})]


async def test_a_cancel_ends_a_wait(api: Api, journal: Journal) -> None:
    """No attempt runs, so the operation is canceled at once, and takes no signal any more."""
    story = await submitted(api, journal, started(), waiting())
    answer = await api.cancel(story.operation.id)
    assert (answer.status_code, answer.json()["status"]) == (200, "Canceled")
    assert code(await send(api, story.operation.id, {"approved": True})) == (409, "OperationFinished")


async def test_the_client_sends_it(api: Api, journal: Journal) -> None:
    """It names its request, says what became of the signal, and raises what the service refuses."""
    story = await submitted(api, journal, started())
    operation_id = story.operation.id
    async with AsyncOperationsClient(api.url) as client:
        assert await client.signal(operation_id, "approval", {"approved": True}, request_id="mine") == "Kept"
        assert await client.signal(operation_id, "approval", {"approved": True}, request_id="mine") == "Kept"
        with pytest.raises(RequestRefused) as refused:
            await client.signal(operation_id, "approval", {"approved": False}, request_id="mine")
        with pytest.raises(InvalidRequest):
            await client.signal(operation_id, "two words")
    assert refused.value.code == "RequestIdReused"
    assert await signals(journal, operation_id) == [("approval", {"approved": True})]


async def test_the_command_sends_it(api: Api, journal: Journal) -> None:
    """`opstream signal` prints what became of it; what is refused is one line and the status 1."""
    story = await submitted(api, journal, started(), waiting())

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, main, ["signal", *arguments, "--url", api.url])

    operation_id = story.operation.id
    wrong = await run(operation_id, "approval", "--input", '{"approved": 1}')
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "InvalidInput" in wrong.stderr
    sent = await run(operation_id, "approval", "--input", '{"approved": true}')
    assert (sent.exit_code, sent.stdout) == (0, "Delivered\n")
    assert (await run(operation_id, "two words")).exit_code == 2
    assert await signals(journal, operation_id) == [("approval", {"approved": True})]
