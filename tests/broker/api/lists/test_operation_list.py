"""Lists on a real service: pages, errors, and whose operations they show."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from opstream_index.location import IndexLocation
from opstream_index.operation_row import row_of
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Failed
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation
from tests.support.access.desk import AccessDesk, serving_with_keys
from tests.support.api.service import Api, OperationStory, failure, serving, spec, started
from tests.support.broker.server import Broker
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import row

pytestmark = pytest.mark.broker

FAILED = {"filter": "status eq 'Failed'"}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FilledIndex]:
    """An empty index that is complete up to now."""
    found = FilledIndex(tmp_path)
    found.complete_until(time.time_ns() // 1000)
    yield found
    found.close()


@pytest.fixture
async def api(broker: Broker, link: Connection, index: FilledIndex) -> AsyncIterator[Api]:
    """A service with an index and one action, which asks for no credentials."""
    await announce_action(link, spec())
    async with serving(broker.url, index=index.location) as api:
        yield api


@pytest.fixture
async def desk(broker: Broker, link: Connection, index: FilledIndex) -> AsyncIterator[AccessDesk]:
    """The same, with API keys."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link, index=index.location) as desk:
        yield desk


def ids(answer: httpx.Response) -> list[str]:
    """The ids of a page."""
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["value"]]


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and target of an error."""
    found = answer.json()["error"]
    assert answer.headers["x-ms-error-code"] == found["code"]
    return answer.status_code, found["code"], found.get("target", "")


async def state(journal: Journal, operation_id: str) -> Operation:
    """An operation as the journal has it."""
    found = fold_for_reader(None, await journal.events(operation_id))
    assert found is not None
    return found


async def test_a_listed_operation_is_that_of_the_status(api: Api, journal: Journal, index: FilledIndex) -> None:
    """Each member that both have is the same; a list has no result, no input, and its own headers."""
    made = await api.submit(headers={"Operation-Id": "one"})
    assert made.status_code == 202
    story = await OperationStory.of(journal, "one")
    await story.append(started(), Failed(error=failure(503, "no paper")))
    index.write(row_of(story.operation))
    answer = await api.client.get("/status", params=FAILED)
    (item,) = answer.json()["value"]
    monitor = (await api.status("one")).json()
    assert {name: item[name] for name in monitor} == monitor
    assert set(item) - set(monitor) == {"version"}
    assert "nextLink" not in answer.json()
    assert float(answer.headers["Index-Lag"]) >= 0
    assert answer.headers["Content-Type"] == "application/json"
    head = await api.client.head("/status", params=FAILED)
    assert (head.status_code, head.content) == (200, b"")


async def test_pages_are_followed_by_their_links(api: Api, index: FilledIndex) -> None:
    """Absolute ones, which keep filter, order, size and selection."""
    index.write(*(row(number, status="Failed", finished_at=1000 - number) for number in range(10)))
    url = f"{api.url}/status?filter=status%20eq%20'Failed'&orderby=finishedAt&maxpagesize=4&select=kind"
    found, pages = [], []
    while url:
        answer = await api.client.get(url)
        found += ids(answer)
        pages.append(len(answer.json()["value"]))
        assert all(set(item) == {"id", "kind"} for item in answer.json()["value"])
        url = answer.json().get("nextLink", "")
        assert not url or url.startswith(f"{api.url}/status?filter=")
    assert found == [f"own-{number}" for number in reversed(range(10))]
    assert pages == [4, 4, 2]


async def test_links_have_the_public_url(broker: Broker, index: FilledIndex, link: Connection) -> None:
    """As `Operation-Location` has it."""
    index.write(*(row(number) for number in range(3)))
    async with serving(broker.url, index=index.location, public_url="https://api.example.com/ops/") as api:
        page = (await api.client.get("/status", params={"maxpagesize": "1"})).json()
    assert page["nextLink"].startswith("https://api.example.com/ops/status?maxpagesize=1&cursor=")


async def test_errors(api: Api, index: FilledIndex) -> None:
    """Each has its code, target and what to do."""
    index.write(*(row(number) for number in range(3)))
    get = api.client.get
    assert error(await get("/status?filter=nonsense")) == (400, "InvalidParameter", "filter")
    assert error(await get("/status?nonsense=1")) == (400, "InvalidParameter", "nonsense")
    cursor = (await get("/status?maxpagesize=1")).json()["nextLink"].partition("cursor=")[2]
    assert ids(await get(f"/status?cursor={cursor}&maxpagesize=2")) == ["own-1", "own-0"]
    assert error(await get(f"/status?cursor={cursor}&orderby=createdAt")) == (400, "InvalidParameter", "cursor")
    assert error(await get(f"/status?cursor={cursor}A")) == (400, "InvalidParameter", "cursor")
    posted = await api.client.post("/status")
    assert (error(posted)[:2], posted.headers["Allow"]) == ((405, "MethodNotAllowed"), "GET, HEAD")
    assert error(await get("/status/"))[0] == 404


async def test_without_an_index(broker: Broker, link: Connection) -> None:
    """The answer says what to switch on, and the document has no list."""
    async with serving(broker.url) as api:
        answer = await api.client.get("/status", params={"filter": "nonsense"})
        assert error(answer)[:2] == (404, "IndexOff")
        assert "--index" in answer.text
        assert "/status" not in (await api.client.get("/openapi.json")).json()["paths"]


async def test_an_index_that_is_not_complete(api: Api, index: FilledIndex) -> None:
    """It is not read, neither at the beginning of a list nor later; when it has caught up, the list goes on."""
    moment = time.time_ns() // 1000
    index.write(*(row(number) for number in range(3)))
    url = (await api.client.get("/status?maxpagesize=1")).json()["nextLink"]
    index.complete_until(0, is_complete=False)
    for one in (url, "/status"):
        answer = await api.client.get(one)
        assert error(answer)[:2] == (503, "IndexUnavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    index.complete_until(1)
    assert (await api.client.get(url)).status_code == 503
    assert float((await api.client.get("/status")).headers["Index-Lag"]) > 1_000_000
    index.complete_until(moment + 10_000_000)
    assert ids(await api.client.get(url)) == ["own-1"]


async def test_an_index_that_is_not_there(broker: Broker, link: Connection, tmp_path: Path) -> None:
    """The service starts, submits, and answers lists once there is one."""
    async with serving(broker.url, index=IndexLocation(path=f"{tmp_path}/index.db")) as api:
        assert error(await api.client.get("/status"))[:2] == (503, "IndexUnavailable")
        found = FilledIndex(tmp_path, [row(1)])
        assert ids(await api.client.get("/status")) == ["own-1"]
        found.close()


async def test_whose_operations_a_list_shows(desk: AccessDesk, index: FilledIndex) -> None:
    """Its own to a caller, those of the tenant to `read:all`; whatever the filter names."""
    rows = {
        "ann": row(1, tenant="acme", caller="ann"),
        "bob": row(2, tenant="acme", caller="bob"),
        "eve": row(3, tenant="evil", caller="ann"),
        "ops": row(4, tenant="", caller="ann"),
        "before": row(5, tenant="", caller="ann", own_id="id-5"),
    }
    index.write(*rows.values())
    callers = {
        "ann": (await desk.caller("acme", "ann", "read"), ["own-1"]),
        "auditor": (await desk.caller("acme", "aud", "read:all"), ["own-2", "own-1"]),
        "eve": (await desk.caller("evil", "ann", "read", "read:all"), ["own-3"]),
        "new": (await desk.caller("evil", "new", "read"), []),
        "ops": (await desk.caller("", "ann", "read"), ["own-4"]),
        "operator": (await desk.caller("", "root", "admin"), ["id-5", "own-4"]),
    }
    for caller, wanted in callers.values():
        seen: list[str] = []
        for text in (
            None,
            "kind eq 'book:print'",
            "caller in ('ann', 'bob')",
            "id ne 'x' and caller ne 'x' and status ne 'Failed' and createdAt ge 2020-01-01T00:00:00Z",
        ):
            params: dict[str, Any] = {} if text is None else {"filter": text}
            found = [one for one in wanted if text is None or "caller in" not in text or one]
            answer = await caller.client.get("/status", params=params)
            assert ids(answer) == found
            seen += ids(answer)
        url = "/status?maxpagesize=1"
        paged: list[str] = []
        while url:
            answer = await caller.get(url)
            paged += ids(answer)
            url = answer.json().get("nextLink", "")
        assert paged == wanted


async def test_a_list_needs_a_scope_and_its_own_cursor(desk: AccessDesk, index: FilledIndex) -> None:
    """Without `read` it is 403, without credentials 401; a cursor is of one caller; a status token opens no list."""
    index.write(*(row(number, tenant="acme", caller="ann") for number in range(3)))
    writer = await desk.caller("acme", "wes", "submit", "cancel")
    assert error(await writer.get("/status"))[:2] == (403, "Forbidden")
    assert error(await desk.api.client.get("/status"))[:2] == (401, "Unauthenticated")
    ann = await desk.caller("acme", "ann", "submit", "read")
    auditor = await desk.caller("acme", "aud", "read:all")
    url = (await ann.get("/status?maxpagesize=1")).json()["nextLink"]
    assert ids(await ann.get(url)) == ["own-1"]
    assert error(await auditor.get(url)) == (400, "InvalidParameter", "cursor")
    made = await ann.submit(headers={"Prefer": "status-token=600"})
    token = made.headers["Operation-Location"].partition("?")[2]
    assert error(await desk.api.client.get(f"/status?{token}"))[:2] == (401, "Unauthenticated")


async def test_the_document_has_the_list(desk: AccessDesk) -> None:
    """With its parameters, its page, and the errors of a service that asks for credentials."""
    reader = await desk.caller("acme", "ann", "read")
    document = (await reader.get("/openapi.json")).json()
    found = document["paths"]["/status"]["get"]
    assert set(found["responses"]) >= {"200", "400", "401", "403", "429", "503"}
    names = {parameter["$ref"].rpartition("/")[2] for parameter in found["parameters"]}
    assert names >= {"filter", "orderby", "maxpagesize", "select", "cursor"}
