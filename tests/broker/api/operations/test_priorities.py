"""`Operation-Priority`: who may ask for which, what is recorded, and the wake-up that follows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Requested
from opstream_schemas.names import Kind
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, extend, folded
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

HEADER = "Operation-Priority"
LOW = Kind("book", "import")
PLAIN = Kind("book", "remove")


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    await announce_action(link, spec(priority="normal"))
    await announce_action(link, spec(LOW, priority="low"))
    await announce_action(link, spec(PLAIN))
    async with serving(broker.url) as api:
        yield api


async def requested(journal: Journal, operation_id: str) -> Requested:
    """The data of an operation's first event."""
    event = (await journal.events(operation_id))[0]
    assert isinstance(event.data, Requested)
    return event.data


async def is_queued(link: Connection, operation_id: str, priority: str, kind: Kind = KIND) -> bool:
    subject = subjects.queued_request_subject(kind, operation_id, priority)
    return await rpc.get_last(link, subjects.OPERATIONS_STREAM, subject) is not None


@pytest.mark.parametrize("priority", ["high", "low"])
async def test_a_priority(api: Api, journal: Journal, link: Connection, priority: str) -> None:
    """It is in the first event and in the status, and the request is in the queue of its priority."""
    answer = await api.submit(headers={"Operation-Id": "op-1", HEADER: priority})

    assert answer.json()["priority"] == priority
    assert (await api.status("op-1")).json()["priority"] == priority
    assert (await requested(journal, "op-1")).priority == priority
    await eventually(lambda: is_queued(link, "op-1", priority))


async def test_without_the_header(api: Api, journal: Journal, link: Connection) -> None:
    """The action says what its requests have, and normal needs no further queue."""
    await api.submit(headers={"Operation-Id": "op-1"})
    await api.submit(f"/{LOW.resource}/1:{LOW.action}", headers={"Operation-Id": "op-2"})
    await api.submit(f"/{PLAIN.resource}/1:{PLAIN.action}", headers={"Operation-Id": "op-3"})

    found = [(await requested(journal, one)).priority for one in ("op-1", "op-2", "op-3")]
    assert found == ["normal", "low", ""]
    assert "priority" not in (await api.status("op-3")).json()
    await eventually(lambda: is_queued(link, "op-2", "low", LOW))
    assert not [one for one in await wakes(link) if "op-1" in one or "op-3" in one]


async def wakes(link: Connection) -> list[str]:
    """The subjects of all wake-ups in the journal."""
    info = await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM, subjects_filter=subjects.WAKE_DESTINATION)
    return list(info.state.subjects or {})


async def test_an_action_without_priorities(api: Api, journal: Journal) -> None:
    """It refuses the header, and says why: its caller would wait for something that does not come."""
    answer = await api.submit(f"/{PLAIN.resource}/1:{PLAIN.action}", headers={"Operation-Id": "op-1", HEADER: "high"})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["target"]) == (400, "InvalidHeader", HEADER)
    assert "has no priorities" in error["message"]
    assert await journal.last_message("op-1") is None


@pytest.mark.parametrize("value", ["urgent", "HIGH", "", "9", "high, low"])
async def test_another_word(api: Api, value: str) -> None:
    """It is refused, with the words that there are."""
    answer = await api.submit(headers={HEADER: value})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["target"]) == (400, "InvalidHeader", HEADER)
    assert "high, normal, low" in error["message"]


async def test_it_is_no_part_of_the_request(api: Api, journal: Journal, link: Connection) -> None:
    """A repetition with another priority is the same operation, and keeps the first one."""
    for priority in ("low", "high"):
        answer = await api.submit(headers={"Operation-Id": "op-1", HEADER: priority})
        assert (answer.status_code, answer.json()["priority"]) == (202, "low")

    assert len(await journal.events("op-1")) == 1
    await eventually(lambda: is_queued(link, "op-1", "low"))
    assert not await is_queued(link, "op-1", "high")


async def test_one_that_begins_later(api: Api, journal: Journal, link: Connection) -> None:
    """It comes into its queue at its time, by the wake-up of that: not before."""
    headers = {"Operation-Id": "op-1", HEADER: "high", "Operation-Start-After": "3600"}
    assert (await api.submit(headers=headers)).json()["priority"] == "high"
    await api.submit(headers={"Operation-Id": "op-2", HEADER: "high"})

    await eventually(lambda: is_queued(link, "op-2", "high"))
    assert not await is_queued(link, "op-1", "high")
    assert (await requested(journal, "op-1")).priority == "high"


async def test_done_again(api: Api, journal: Journal) -> None:
    """The follow-up has the priority of the operation."""
    await api.submit(headers={"Operation-Id": "op-1", HEADER: "high"})
    await extend(journal, folded(None, *await journal.events("op-1")), Canceled())
    answer = await api.client.post("/status/op-1:retry")

    assert answer.status_code == 202
    assert answer.json()["priority"] == "high"


async def test_the_documents_say_it(api: Api) -> None:
    """OpenAPI has the header for actions with priorities, and for no other."""
    paths = (await api.client.get("/openapi.json")).json()["paths"]

    def headers_of(kind: Kind) -> str:
        return str(paths[f"/{kind.resource}/{{id}}:{kind.action}"]["post"]["parameters"])

    assert HEADER in headers_of(LOW)
    assert HEADER not in headers_of(PLAIN)
