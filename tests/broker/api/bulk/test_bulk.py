"""Bulk operations on a real service: what they do to many operations, what they record, and how they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from opstream_index.operation_row import row_of
from opstream_journal import NEW_OPERATION, Connection, Journal, announce_action
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import ActionAccess
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.events import Canceled, EventData, Failed, Progressed, Requested, Succeeded
from opstream_schemas.operation.fold import first_event
from tests.support.api.service import (
    INPUT,
    UPLOAD,
    Api,
    OperationStory,
    failure,
    serving,
    spec,
    started,
    stored_messages,
)
from tests.support.broker.roles import RoleBroker
from tests.support.broker.server import Broker
from tests.support.index.filled_index import FilledIndex
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

FAILED = (started(), Failed(error=failure(503)))
SUCCEEDED = (started(), Succeeded(result=msgspec.Raw(b"null")))
ALL = {"filter": "kind eq 'book:upload-start'", "perSecond": "500"}
HOUR = 3_600_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FilledIndex]:
    """An empty index that is complete for the whole test."""
    found = FilledIndex(tmp_path)
    found.complete_until(time.time_ns() // 1000 + HOUR)
    yield found
    found.close()


@pytest.fixture
async def api(broker: Broker, link: Connection, index: FilledIndex) -> AsyncIterator[Api]:
    """A service with an index and one action."""
    await announce_action(link, spec())
    async with serving(broker.url, index=index.location) as api:
        yield api


async def happened(api: Api, journal: Journal, index: FilledIndex, own: str, *events: EventData) -> None:
    """An operation that the index has, too."""
    assert (await api.submit(headers={"Operation-Id": own})).status_code == 202
    story = await OperationStory.of(journal, own)
    await story.append(*events)
    index.write(row_of(story.operation))


async def bulk(api: Api, act: str = "retry", body: Any = None, headers: Any = None, **more: str) -> httpx.Response:
    """POST a bulk request; a parameter that is empty is left out."""
    params = {name: value for name, value in (ALL | more).items() if value}
    return await api.client.post(f"/status:{act}", params=params, json=body, headers=headers)


async def ended(api: Api, answer: httpx.Response) -> dict[str, Any]:
    """The status monitor of a bulk operation once it has ended."""
    assert answer.status_code == 202, answer.text
    monitor: dict[str, Any] = (await api.wait(answer.json()["id"], 20)).json()
    return monitor


async def items(api: Api, operation_id: str) -> list[dict[str, Any]]:
    """What the history has of each item."""
    history = (await api.client.get(f"/status/{operation_id}/events")).json()["value"]
    return [item for event in history for item in event["data"].get("bulk", {}).get("items", ())]


async def test_all_that_failed_are_done_again(api: Api, journal: Journal, index: FilledIndex, link: Connection) -> None:
    """Each has its follow-up, which the history names. Nothing else has one, and a second time changes nothing."""
    for number in range(4):
        await happened(api, journal, index, f"bad-{number}", *FAILED)
    await happened(api, journal, index, "stopped", Canceled())
    await happened(api, journal, index, "good", *SUCCEEDED)
    await happened(api, journal, index, "open", started())
    dry = await bulk(api, dryRun="true")
    assert (dry.status_code, dry.json()["count"], dry.json()["isWhole"]) == (200, 5, True)
    assert [one["id"] for one in dry.json()["sample"]] == ["bad-0", "bad-1", "bad-2", "bad-3", "stopped"]
    assert float(dry.headers["Index-Lag"]) >= 0
    before = await stored_messages(link)
    answer = await bulk(api)
    assert (answer.json()["kind"], answer.headers["Operation-Id"]) == ("operations:retry", answer.json()["id"])
    monitor = await ended(api, answer)
    assert monitor["status"] == "Succeeded", monitor
    assert monitor["result"] == {"matched": 5, "done": 5, "refused": 0, "refusals": []}
    assert monitor["percentComplete"] == 100
    expected = [{"id": own, "operationId": f"{own}-retry-1"} for own in ("bad-0", "bad-1", "bad-2", "bad-3", "stopped")]
    assert await items(api, monitor["id"]) == expected
    assert (await api.status("bad-3-retry-1")).json()["retryOf"] == "bad-3"
    for own in ("good", "open"):
        assert (await api.status(f"{own}-retry-1")).status_code == 404
    between = await stored_messages(link)
    assert between - before == 5 + 5  # requested, started, two of progress, succeeded; and the follow-ups
    again = await ended(api, await bulk(api))
    assert (again["result"]["done"], await items(api, again["id"])) == (5, expected)
    assert await stored_messages(link) - between == 5


async def test_all_that_is_open_is_canceled(api: Api, journal: Journal, index: FilledIndex) -> None:
    """With the reason; what runs is asked to stop, what has ended meanwhile is named as refused."""
    await happened(api, journal, index, "waits")
    await happened(api, journal, index, "runs", started())
    await happened(api, journal, index, "good", *SUCCEEDED)
    await happened(api, journal, index, "ends", started())
    await (await OperationStory.of(journal, "ends")).append(SUCCEEDED[1])
    answer = await bulk(api, "cancel", {"reason": "the disk is full"})
    monitor = await ended(api, answer)
    assert monitor["kind"] == "operations:cancel"
    refusal = {"id": "ends", "code": "OperationFinished"}
    (refused,) = monitor["result"].pop("refusals")
    assert monitor["result"] == {"matched": 3, "done": 2, "refused": 1}
    assert {name: refused[name] for name in refusal} == refusal
    assert await items(api, monitor["id"]) == [
        {"id": "waits", "status": "Canceled"},
        {"id": "runs", "status": "Running"},
        refused,
    ]
    last = (await journal.events("waits"))[-1].data
    assert last == Canceled(reason="the disk is full")
    assert (await api.status("runs")).json()["cancelRequested"] is True


async def test_a_repeated_request_is_one_bulk_operation(api: Api, journal: Journal, index: FilledIndex) -> None:
    """By its `Operation-Id`, also when it has ended; with another filter the id is refused."""
    await happened(api, journal, index, "bad", *FAILED)
    key = {"Operation-Id": "all", "Operation-Label": "team=press"}
    first = await bulk(api, headers=key)
    assert first.json()["labels"] == {"team": "press"}
    monitor = await ended(api, first)
    again = await bulk(api, headers=key)
    assert (again.status_code, again.json()) == (202, monitor)
    other = await bulk(api, headers=key, filter="status eq 'Failed'")
    assert (other.status_code, other.json()["error"]["code"]) == (400, "OperationIdReused")
    refused = await api.client.post("/status/all:retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "OperationNotRetriable")


async def test_a_cancel_stops_it(api: Api, journal: Journal, index: FilledIndex) -> None:
    """What is done stays done, and is recorded; nothing more is done. A rate of one a second leaves the time."""
    for number in range(5):
        await happened(api, journal, index, f"bad-{number}", *FAILED)
    answer = await bulk(api, perSecond="1")
    operation_id = answer.json()["id"]

    async def has_begun() -> bool:
        return (await api.status("bad-0-retry-1")).status_code == 200

    await eventually(has_begun, within=10)
    assert (await api.cancel(operation_id)).status_code == 200
    monitor = await ended(api, answer)
    assert monitor["status"] == "Canceled"
    refused = await api.client.post(f"/status/{operation_id}:retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "OperationNotRetriable")
    assert "POST /status:retry with its filter" in refused.json()["error"]["message"]
    done = await items(api, operation_id)
    assert {"id": "bad-0", "operationId": "bad-0-retry-1"} in done
    assert len(done) < 5
    for number in range(5):
        follow_up = await api.status(f"bad-{number}-retry-1")
        assert (follow_up.status_code == 200) == any(one["id"] == f"bad-{number}" for one in done)


async def test_what_is_refused_is_named(api: Api, journal: Journal, index: FilledIndex, link: Connection) -> None:
    """An item that a request for it alone would be refused stops nothing."""

    class Narrow(msgspec.Struct, forbid_unknown_fields=True):
        title: str

    async def is_known() -> bool:
        return "(version 2)" in (await api.client.get("/openapi.json")).text

    await happened(api, journal, index, "wide", *FAILED)
    assert (await api.submit(body={"title": "short"}, headers={"Operation-Id": "short"})).status_code == 202
    story = await OperationStory.of(journal, "short")
    await story.append(*FAILED)
    index.write(row_of(story.operation))
    await announce_action(link, spec(version=2, input_type=Narrow))
    await eventually(is_known, within=15)
    monitor = await ended(api, await bulk(api))
    assert (monitor["status"], monitor["result"]["done"], monitor["result"]["refused"]) == ("Succeeded", 1, 1)
    (refused,) = monitor["result"]["refusals"]
    assert (refused["id"], refused["code"]) == ("wide", "InvalidInput")


async def test_two_services_share_the_work(api: Api, journal: Journal, index: FilledIndex, broker: Broker) -> None:
    """Two services share the work, and each item is done once, whichever does it."""
    for number in range(30):
        await happened(api, journal, index, f"bad-{number:02}", *FAILED)
    async with serving(broker.url, index=index.location):
        answers = await asyncio.gather(*(bulk(api, headers={"Operation-Id": f"all-{n}"}) for n in range(6)))
        monitors = [await ended(api, answer) for answer in answers]
    assert {one["status"] for one in monitors} == {"Succeeded"}
    assert {one["result"]["done"] for one in monitors} == {30}
    for number in range(30):
        assert len(await journal.events(f"bad-{number:02}-retry-1")) == 1


async def test_one_that_can_not_be_run_stops_no_other(
    api: Api, journal: Journal, index: FilledIndex, caplog: pytest.LogCaptureFixture
) -> None:
    """What another program stored in its place is logged, and comes again; the process goes on with the others."""
    requested = Requested(
        resource="operations",
        action="retry",
        action_version=1,
        input=msgspec.Raw(b"{}"),
        request_hash="",
        deadline=datetime.now(UTC) + timedelta(hours=1),
        retention=3600.0,
    )
    event = first_event("strange", requested, id="1", source="test", time=datetime.now(UTC))

    def is_logged() -> bool:
        return any("failed because of an error of ours" in one.getMessage() for one in caplog.records)

    for number in range(6):  # more than a process runs at once
        own = msgspec.structs.replace(event, operation_id=f"strange-{number}", id=str(number))
        await journal.append(BulkAct.RETRY.kind, own, NEW_OPERATION, budget=5)
    await eventually(is_logged, within=10)
    await happened(api, journal, index, "bad", *FAILED)
    assert (await ended(api, await bulk(api)))["status"] == "Succeeded"


async def test_nothing_is_selected(api: Api) -> None:
    """That is a bulk operation, too, which has nothing to do."""
    monitor = await ended(api, await bulk(api))
    assert (monitor["status"], monitor["result"]["matched"]) == ("Succeeded", 0)


@pytest.mark.parametrize("act", [*BulkAct])
async def test_requests_that_are_none(api: Api, act: str, link: Connection) -> None:
    """Nothing is begun by another method, by a body or a query that is none, or from another site."""
    before = await stored_messages(link)
    for answer, status, code in (
        (await api.client.get(f"/status:{act}"), 405, "MethodNotAllowed"),
        (await api.client.put(f"/status:{act}"), 405, "MethodNotAllowed"),
        (await bulk(api, act, filter=""), 400, "InvalidParameter"),
        (await bulk(api, act, filter="message eq 'x'"), 400, "InvalidParameter"),
        (await bulk(api, act, {"input": INPUT}), 400, "InvalidInput"),
        (await bulk(api, act, headers={"Operation-Id": "a b"}), 400, "InvalidHeader"),
        (await bulk(api, act, headers={"Origin": "https://evil.test"}), 403, "CrossSiteRequest"),
        (await api.client.post("/status:forget"), 404, "NotFound"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert await stored_messages(link) == before


async def test_a_service_without_an_index(broker: Broker, link: Connection) -> None:
    """It says how to get one, and its document has no such paths."""
    async with serving(broker.url) as api:
        answer = await bulk(api)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "IndexOff")
        assert not any(path.startswith("/status:") for path in (await api.client.get("/openapi.json")).json()["paths"])


async def test_an_index_that_is_behind_is_waited_for(api: Api, journal: Journal, index: FilledIndex) -> None:
    """What failed before the request is done again, also if the index learns of it later."""
    await happened(api, journal, index, "first", *FAILED)
    index.complete_until(1)
    answer = await bulk(api)
    assert answer.status_code == 202
    await happened(api, journal, index, "second", *FAILED)  # requested later, so it is not selected
    index.complete_until(time.time_ns() // 1000 + HOUR)
    monitor = await ended(api, answer)
    assert (monitor["result"]["matched"], monitor["result"]["done"]) == (1, 1)
    progress = [one.data for one in await journal.events(monitor["id"]) if isinstance(one.data, Progressed)]
    assert progress[0].bulk is not None


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[tuple[RoleBroker, Connection]]:
    """A broker with a login for each role, provisioned by its operator."""
    with RoleBroker(tmp_path, [ActionAccess(UPLOAD)]) as broker:
        connection = await broker.connect("admin")
        await provision(connection, Sizing())
        await announce_action(connection, spec())
        yield broker, connection
        await connection.close()


async def test_the_login_of_the_api_is_enough(operator: tuple[RoleBroker, Connection], index: FilledIndex) -> None:
    """It may take bulk operations and record what becomes of them, and has no other right for it."""
    broker, connection = operator
    journal = Journal(connection, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
    await journal.start()
    login = broker.credentials("api")
    async with serving(broker.broker.url, index=index.location, credentials=login) as api:
        await happened(api, journal, index, "bad", *FAILED)
        await happened(api, journal, index, "open", started())
        retried, canceled = await ended(api, await bulk(api)), await ended(api, await bulk(api, "cancel"))
    assert (retried["status"], retried["result"]["done"]) == ("Succeeded", 1)
    assert (canceled["status"], canceled["result"]["done"]) == ("Succeeded", 1)


async def test_a_broker_of_an_earlier_release(operator: tuple[RoleBroker, Connection], index: FilledIndex) -> None:
    """Without their consumers, which this login may not make, bulk requests say what to run; all else works."""
    broker, connection = operator
    for act in BulkAct:
        await connection.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, subjects.runner_consumer(act.kind))
    login = broker.credentials("api")
    async with serving(broker.broker.url, index=index.location, credentials=login) as api:

        async def is_refused() -> bool:
            answer = await bulk(api, filter="status eq 'Failed'")
            return answer.status_code == 503 and "opstream provision" in answer.json()["error"]["message"]

        await eventually(is_refused, within=10)
        assert (await api.submit()).status_code == 202
