"""Start times as clients see them: `startAt`, the deadline, how long to wait for the next poll, and repetitions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_journal.provisioning.topology import AGE_MARGIN, Sizing
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas import subjects
from opstream_schemas.action_spec import DAY_SECONDS
from opstream_schemas.events import Requested
from opstream_schemas.names import Kind
from opstream_schemas.operation.resource_lock import Claim, LockOwned
from tests.support.api.service import Api, serving, spec, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

AT = "Operation-Start-At"
AFTER = "Operation-Start-After"
REJECTING = Kind("book", "remove")


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    await announce_action(link, spec(deadline=3_600.0, retry_after=2))
    await announce_action(link, spec(REJECTING, exclusive="resource", on_conflict="reject"))
    async with serving(broker.url) as api:
        yield api


async def requested(journal: Journal, operation_id: str) -> Requested:
    """The data of an operation's only event."""
    (event,) = await journal.events(operation_id)
    assert isinstance(event.data, Requested)
    return event.data


async def test_a_start_time(api: Api, journal: Journal) -> None:
    """The status has it, the deadline counts from it, and the client is told to come back later than usual."""
    at = datetime.now(UTC) + timedelta(hours=2)
    answer = await api.submit(headers={"Operation-Id": "op-1", AT: at.isoformat()})
    read = await api.status("op-1")

    for one in (answer, read):
        assert datetime.fromisoformat(one.json()["startAt"]) == at
        assert (one.json()["status"], one.headers["Retry-After"]) == ("NotStarted", "60")
    assert read.json()["waitingFor"] == "StartTime"
    data = await requested(journal, "op-1")
    assert (data.start_at, data.deadline) == (at, at + timedelta(hours=1))


async def test_seconds_from_now(api: Api, journal: Journal) -> None:
    """Seconds count from the request."""
    before = datetime.now(UTC)
    answer = await api.submit(headers={"Operation-Id": "op-1", AFTER: "30"})
    at = datetime.fromisoformat(answer.json()["startAt"])

    assert before + timedelta(seconds=30) <= at <= datetime.now(UTC) + timedelta(seconds=30)
    assert 25 <= int(answer.headers["Retry-After"]) <= 30
    assert (await requested(journal, "op-1")).start_after == 30


async def test_a_time_that_has_passed(api: Api, journal: Journal) -> None:
    """It is recorded, and the deadline counts from the request."""
    at = datetime.now(UTC) - timedelta(hours=2)
    answer = await api.submit(headers={"Operation-Id": "op-1", AT: at.isoformat()})

    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "2")
    (event,) = await journal.events("op-1")
    assert isinstance(event.data, Requested)
    assert (event.data.start_at, event.data.deadline) == (at, event.time + timedelta(hours=1))


async def test_it_can_be_canceled(api: Api) -> None:
    """What has not begun is canceled at once."""
    await api.submit(headers={"Operation-Id": "op-1", AFTER: "3600"})
    assert (await api.cancel("op-1")).json()["status"] == "Canceled"


@pytest.mark.parametrize("header", [AT, AFTER])
async def test_it_is_part_of_the_request(api: Api, link: Connection, header: str) -> None:
    """The same request again is the same operation, with the time of the first; with another time, or none, refused."""
    at = datetime.now(UTC) + timedelta(hours=2)
    by_the_other = {AFTER: "7200"} if header == AT else {AT: at.isoformat()}
    value, other = (at.isoformat(), (at + timedelta(seconds=1)).isoformat()) if header == AT else ("7200", "7201")
    first = await api.submit(headers={"Operation-Id": "op-1", header: value})
    stored = await stored_messages(link)
    again = await api.submit(headers={"Operation-Id": "op-1", header: value})
    refused = [
        await api.submit(headers={"Operation-Id": "op-1", header: other}),
        await api.submit(headers={"Operation-Id": "op-1"}),
        await api.submit(headers={"Operation-Id": "op-1", **by_the_other}),
    ]

    assert (again.status_code, again.json()["startAt"]) == (202, first.json()["startAt"])
    assert [one.json()["error"]["code"] for one in refused] == ["OperationIdReused"] * 3
    assert await stored_messages(link) == stored


async def test_another_zone_is_the_same_time(api: Api) -> None:
    """A time that is written in another zone is the same request."""
    at = datetime.now(UTC) + timedelta(hours=2)
    for text in (at.isoformat(), at.isoformat().replace("+00:00", "Z")):
        assert (await api.submit(headers={"Operation-Id": "op-1", AT: text})).status_code == 202


async def test_the_journal_must_keep_it(api: Api, link: Connection) -> None:
    """A time is refused at which the request, its end and its status would not all fit into the journal's age."""
    room = timedelta(seconds=Sizing().max_age - 3_600.0 - DAY_SECONDS - AGE_MARGIN)
    now = datetime.now(UTC)
    near = await api.submit(headers={AT: (now + room - timedelta(minutes=1)).isoformat()})
    before = await stored_messages(link)
    far = await api.submit(headers={AT: (now + room + timedelta(minutes=1)).isoformat()})
    past = await api.submit(headers={AT: (now - timedelta(days=366)).isoformat()})

    assert near.status_code == 202
    for one in (far, past):
        assert (one.status_code, one.json()["error"]["code"], one.json()["error"]["target"]) == (
            400,
            "InvalidHeader",
            AT,
        )
    assert "--max-age" in far.json()["error"]["message"]
    assert await stored_messages(link) == before


async def test_a_busy_resource_counts_at_its_time(api: Api, journal: Journal, link: Connection) -> None:
    """Whether the resource is free matters when the operation begins, not when it is requested."""
    await api.submit("/book/42:remove", headers={"Operation-Id": "owner"})
    (event,) = await journal.events("owner")
    locks = ResourceLocks(link, journal)
    await locks.start()
    lock = subjects.lock_key("action.book.remove", "42")
    claim = Claim(operation_id="owner", sequence=event.sequence, kind=str(REJECTING))
    assert isinstance(await locks.acquire(lock, claim), LockOwned)

    assert (await api.submit("/book/42:remove")).status_code == 409
    assert (await api.submit("/book/42:remove", headers={AFTER: "60"})).status_code == 202
