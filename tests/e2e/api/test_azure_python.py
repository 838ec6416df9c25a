"""azure-core drives operations from submit to result, failure and cancel, without knowing opstream.

Its pipelines and pollers are used as clients generated for Azure services use them, sync and async.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, map_error
from azure.core.polling.base_polling import OperationFailed

from opstream_schemas.events import Requested
from tests.support.azure.actions import PACE, write_module
from tests.support.azure.clients import AsyncAzure, SyncAzure, post
from tests.support.azure.gate import WORD, FileGate
from tests.support.system.invariants import decoded, gather
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

Azure = SyncAzure | AsyncAzure
CLIENTS: Final[dict[str, type[Azure]]] = {"sync": SyncAzure, "async": AsyncAzure}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that serves."""
    folder = tmp_path_factory.mktemp("azure")
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder))
        system.begin()
        yield system


@pytest.fixture(params=CLIENTS)
async def azure(system: System, request: pytest.FixtureRequest) -> AsyncIterator[Azure]:
    """A client of each kind."""
    async with CLIENTS[request.param](system.api) as azure:
        yield azure


@pytest.fixture
def gate(tmp_path: Path) -> FileGate:
    """What `azure:pass` waits at."""
    return FileGate(tmp_path / "gate")


def named() -> dict[str, str]:
    """A header with a new operation id."""
    return {"Operation-Id": f"azure-{uuid.uuid4()}"}


async def test_a_result(azure: Azure) -> None:
    """The poller ends with the monitor, which has the result. It polls only `Operation-Location`."""
    headers = named()
    initial = await azure.send(post("/azure:say", {"text": "hello"}, headers))
    poller = azure.poller(initial)
    assert await azure.result(poller) == {"text": "hello"}
    assert (poller.status(), poller.done()) == ("Succeeded", True)
    sent, answered = initial.http_request.headers, initial.http_response.headers
    assert answered["x-ms-client-request-id"] == sent["x-ms-client-request-id"]
    location = answered["operation-location"]
    assert location.endswith(f"/status/{headers['Operation-Id']}")
    first, *polls = azure.traffic.exchanges
    assert (first.method, first.status) == ("POST", 202)
    assert polls == azure.traffic.polls(location)
    assert {poll.status for poll in polls} == {200}


async def test_the_pace(azure: Azure, gate: FileGate) -> None:
    """It polls as often as `Retry-After` says, neither sooner nor as seldom as by default."""
    initial = await azure.send(post("/azure/1:pass", {"path": str(gate.path)}, named()))
    location = initial.http_response.headers["operation-location"]
    ending = asyncio.create_task(azure.result(azure.poller(initial)))
    await eventually(lambda: len(azure.traffic.polls(location)) >= 3, within=15)
    await gate.open()
    assert await ending == {"text": WORD}
    pauses = [later.begun - earlier.ended for earlier, later in pairwise(azure.traffic.polls(location))]
    assert len(pauses) >= 2
    assert min(pauses) >= PACE
    assert max(pauses) < 5 * PACE


@pytest.mark.parametrize("code", [400, "ClientOutOfDate"])
async def test_a_failure(azure: Azure, code: int | str) -> None:
    """It raises the exception that it raises for Azure, with the code and the message of the action."""
    fault = {"code": code, "message": "there is a newer client"}
    poller = azure.poller(await azure.send(post("/azure:fail", fault, named())))
    with pytest.raises(HttpResponseError) as caught:
        await azure.result(poller)
    assert isinstance(caught.value.inner_exception, OperationFailed)
    assert caught.value.error is not None
    assert (caught.value.error.code, caught.value.error.message) == (code, "there is a newer client")
    assert poller.status() == "Failed"


async def test_a_cancel(azure: Azure) -> None:
    """Canceled through the same pipeline while it runs, the poller says Canceled, and its result raises."""
    initial = await azure.send(post("/azure:wait", {"text": "for ever"}, named()))
    location = initial.http_response.headers["operation-location"]
    poller = azure.poller(initial)
    ending = asyncio.create_task(azure.result(poller))
    await eventually(lambda: poller.status() == "Running")
    answer = (await azure.send(post(f"{location}:cancel", {"reason": "enough"}))).http_response
    assert (answer.status_code, answer.json()["id"]) == (200, location.rpartition("/")[2])
    assert answer.json()["status"] in {"Running", "Canceled"}
    with pytest.raises(HttpResponseError) as caught:
        await ending
    assert isinstance(caught.value.inner_exception, OperationFailed)
    assert caught.value.error is None
    assert poller.status() == "Canceled"


async def test_a_continuation_token(azure: Azure, system: System, gate: FileGate) -> None:
    """One poller continues what another one began, in another client that has only the token."""
    initial = await azure.send(post("/azure/1:pass", {"path": str(gate.path)}, named()))
    location = initial.http_response.headers["operation-location"]
    poller = azure.poller(initial)
    ending = asyncio.create_task(azure.result(poller))
    await eventually(lambda: poller.status() == "Running")
    async with type(azure)(system.api) as other:
        resumed = other.resumed(poller.continuation_token())
        ending_too = asyncio.create_task(other.result(resumed))
        await eventually(lambda: other.traffic.polls(location))
        await gate.open()
        assert (await ending, await ending_too) == ({"text": WORD}, {"text": WORD})
        assert resumed.status() == "Succeeded"


async def test_a_request_that_is_sent_again(azure: Azure) -> None:
    """After the operation has ended, the 202 of the same Operation-Id says so, and the poller needs no poll."""
    request = ("/azure:say", {"text": "hello"}, named())
    result = await azure.result(azure.poller(await azure.send(post(*request))))
    count = len(azure.traffic.exchanges)
    again = azure.poller(await azure.send(post(*request)))
    assert again.status() == "Succeeded"
    assert await azure.result(again) == result
    assert len(azure.traffic.exchanges) == count + 1


async def test_a_refusal(azure: Azure) -> None:
    """An error response becomes azure-core's exception for its status, with code and target."""
    refused = (await azure.send(post("/azure:say", {"text": 1}, named()))).http_response
    error = HttpResponseError(response=refused).error
    assert error is not None
    assert (refused.status_code, error.code, error.target) == (400, "InvalidInput", "text")
    unknown = (await azure.send(post("/azure:nothing", {}, named()))).http_response
    with pytest.raises(ResourceNotFoundError) as caught:
        map_error(unknown.status_code, unknown, {404: ResourceNotFoundError})
    assert caught.value.error is not None
    assert caught.value.error.code == unknown.headers["x-ms-error-code"] == "UnknownAction"


def repeatable() -> dict[str, str]:
    """The headers by which clients generated for Azure make a POST repeatable."""
    return {"Repeatability-Request-ID": str(uuid.uuid4()), "Repeatability-First-Sent": formatdate(usegmt=True)}


@pytest.mark.parametrize(("azure", "identity"), [("sync", named), ("async", repeatable)], indirect=["azure"])
async def test_a_503_is_retried(azure: Azure, system: System, identity: Callable[[], dict[str, str]]) -> None:
    """A frozen broker stores the request, but can't acknowledge it in time. azure-core sends it again by itself, and
    gets the operation of the first try.
    """
    headers, words = identity(), {"text": f"once {uuid.uuid4()}"}
    system.freeze(BROKER)
    try:
        sending = asyncio.create_task(azure.send(post("/azure:say", words, headers)))
        await eventually(lambda: azure.traffic.exchanges, within=10)
        thawed = datetime.now(UTC)
    finally:
        system.thaw(BROKER)
    initial = await sending
    *refused, accepted = azure.traffic.exchanges
    assert ({one.status for one in refused}, accepted.status) == ({503}, 202)
    assert {one.operation_id for one in azure.traffic.exchanges} == {headers.get("Operation-Id")}
    assert datetime.fromisoformat(initial.http_response.json()["createdAt"]) < thawed
    assert await azure.result(azure.poller(initial)) == words
    evidence = await gather(system.nats)
    requests = [decoded(history)[0].data for history in evidence.histories().values()]
    inputs = [msgspec.json.decode(one.input) for one in requests if isinstance(one, Requested)]
    assert inputs.count(words) == 1
    assert evidence.requests(initial.http_response.json()["id"]) == 1
