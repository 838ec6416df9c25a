"""Microsoft's Azure REST API Guidelines, as far as the contract takes them over: one table, a row for each rule.

The contract marks such rules with `*`. Every mark has rows here, and every row names the anchor of its rule in the
guidelines' own text, so that `azure/Guidelines.md#{anchor}` of the repository microsoft/api-guidelines explains it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Canceled, EventData, Failed, Succeeded
from opstream_schemas.names import Kind
from tests.support.api.service import (
    INPUT,
    JSON,
    Api,
    OperationStory,
    failure,
    post,
    serving,
    spec,
    started,
    stored_messages,
)
from tests.support.broker.server import Broker
from tests.support.index.filled_index import FilledIndex
from tests.support.index.reference_list import row

pytestmark = pytest.mark.broker

GUIDELINES: Final = "Guidelines.md"
CONSIDERATIONS: Final = "ConsiderationsForServiceDesign.md"
"""The guidelines' second page, which introduces the first."""
MARKS: Final = 28
"""How many rules of the contract have a `*`."""

ACTIONS: Final = Path(__file__).parents[3] / "docs" / "actions.md"
PATH: Final = "/book/42:upload-start"
OTHER: Final = Kind("book", "archive")
PACE: Final = 2
RESULT: Final = {"transaction": "t-1"}
ENDS: Final[dict[str, EventData]] = {
    "Succeeded": Succeeded(result=msgspec.Raw(msgspec.json.encode(RESULT))),
    "Failed": Failed(error=failure("ClientOutOfDate", "there is a newer client")),
    "Canceled": Canceled(reason="never mind"),
}
STATUSES: Final = ("NotStarted", "Running", *ENDS)


class Stage(NamedTuple):
    """A service with two actions, and its journal."""

    api: Api
    journal: Journal
    link: Connection
    servers: str
    index: FilledIndex

    async def submit(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Submit, and require a 202."""
        answer = await self.api.submit(headers=headers, **changes)
        assert answer.status_code == 202, answer.text
        return answer

    async def bring(self, status: str, headers: dict[str, str] | None = None) -> str:
        """Submit an operation and append events up to a status; return its id."""
        operation_id: str = (await self.submit(headers)).json()["id"]
        story = await OperationStory.of(self.journal, operation_id)
        if status != "NotStarted":
            await story.append(started())
        if status in ENDS:
            await story.append(ENDS[status])
        return operation_id


Check = Callable[[Stage], Awaitable[None]]


class Row(NamedTuple):
    """One rule of the guidelines."""

    anchor: str
    mark: str
    """What the contract marks."""
    rule: str
    check: Check
    page: str = GUIDELINES
    differs: str = ""
    """How the contract departs from the rule, knowingly."""


@pytest.fixture
async def stage(broker: Broker, link: Connection, journal: Journal, tmp_path: Path) -> AsyncIterator[Stage]:
    """A service without runner and projector: checks append the events of both."""
    await announce_action(link, spec(retry_after=PACE))
    await announce_action(link, spec(OTHER))
    index = FilledIndex(tmp_path)
    async with serving(broker.url, index=index.location) as api:
        yield Stage(api, journal, link, broker.url, index)
    index.close()


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """Require an error."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def validates_first(stage: Stage) -> None:
    bodies: list[Any] = [{"title": 1}, {}, [], None, INPUT | {"files": [{"path": "1.txt"}]}]
    for body in bodies:
        refused(await stage.api.submit(body=body), 400, "InvalidInput")
    assert await stored_messages(stage.link) == 0


async def refuses_unknown_fields(stage: Stage) -> None:
    answer = await stage.api.submit(body=INPUT | {"color": "blue"})
    refused(answer, 400, "InvalidInput")
    assert answer.json()["error"]["target"] == "color"
    assert await stored_messages(stage.link) == 0


async def accepts(stage: Stage) -> None:
    for path in (PATH, "/book:upload-start"):
        assert (await stage.api.submit(path)).status_code == 202


async def names_the_monitor(stage: Stage) -> None:
    sent = post(PATH, msgspec.json.encode(INPUT), f"Content-Type: {JSON}", "Operation-Id: one", host="books.test:81")
    assert (await stage.api.raw(sent)).header("Operation-Location") == "http://books.test:81/status/one"
    async with serving(stage.servers, public_url="https://books.example") as public:
        assert (await public.raw(sent)).header("Operation-Location") == "https://books.example/status/one"
    answer = await stage.submit()
    assert (await stage.api.client.get(answer.headers["Operation-Location"])).json()["id"] == answer.json()["id"]


async def says_when_to_poll_first(stage: Stage) -> None:
    assert (await stage.submit()).headers["Retry-After"] == str(PACE)


async def answers_with_the_monitor(stage: Stage) -> None:
    answer = await stage.submit({"Operation-Id": "one"})
    assert list(answer.json().items())[:2] == [("id", "one"), ("status", "NotStarted")]
    assert answer.json() == (await stage.api.status("one")).json()


async def accepts_once_it_has_ended(stage: Stage) -> None:
    for status in STATUSES:
        headers = {"Operation-Id": status}
        await stage.bring(status, headers)
        assert (await stage.submit(headers)).json()["status"] == status


async def takes_an_id(stage: Stage) -> None:
    longest = "Az09_-" + "x" * 58
    for operation_id in ("1", longest):
        answer = await stage.submit({"Operation-Id": operation_id})
        assert answer.json()["id"] == operation_id
        assert answer.headers["Operation-Location"].endswith(f"/status/{operation_id}")
    for wrong in ("", "a b", "a/b", "1.0", longest + "x"):
        refused(await stage.api.submit(headers={"Operation-Id": wrong}), 400, "InvalidHeader")


async def repeats(stage: Stage) -> None:
    turned = dict(reversed(INPUT.items()))
    headers = {"Operation-Id": "one"}
    answers = await asyncio.gather(*(stage.submit(headers, body=body) for body in (INPUT, turned) * 4))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert len({answer.headers["Operation-Location"] for answer in answers}) == 1
    assert await stored_messages(stage.link) == 1


async def refuses_another_request(stage: Stage) -> None:
    headers = {"Operation-Id": "one"}
    await stage.submit(headers)
    others: list[dict[str, Any]] = [
        {"body": INPUT | {"title": "Emma"}},
        {"path": "/book/43:upload-start"},
        {"path": "/book/42:archive"},
    ]
    for other in others:
        refused(await stage.api.submit(headers=headers, **other), 400, "OperationIdReused")
    assert await stored_messages(stage.link) == 1


async def makes_an_id(stage: Stage) -> None:
    ids = [UUID((await stage.submit()).json()["id"]) for _ in range(2)]
    assert [one.version for one in ids] == [7, 7]
    assert ids[0] < ids[1]


def repeatable(first_sent: str = "Tue, 24 Nov 2026 08:00:00 GMT") -> dict[str, str]:
    """A new pair of headers."""
    return {"Repeatability-Request-ID": str(uuid4()), "Repeatability-First-Sent": first_sent}


async def repeats_by_pair(stage: Stage) -> None:
    pair = repeatable()
    answers = [await stage.submit(headers) for headers in (pair, pair, repeatable())]
    assert {answer.headers["Repeatability-Result"] for answer in answers} == {"accepted"}
    first, again, another = (answer.json()["id"] for answer in answers)
    assert (first, first != another) == (again, True)
    assert await stored_messages(stage.link) == 2
    assert "Repeatability-Result" not in (await stage.submit()).headers


async def names_one_request_by_pair(stage: Stage) -> None:
    pair = repeatable()
    await stage.submit(pair)
    refused(await stage.api.submit("/book/42:archive", headers=pair), 400, "OperationIdReused")
    for half in pair:
        refused(await stage.api.submit(headers={half: pair[half]}), 400, "InvalidHeader")
    refused(await stage.api.submit(headers=pair | {"Operation-Id": "one"}), 400, "InvalidHeader")
    assert await stored_messages(stage.link) == 1


async def takes_http_dates(stage: Stage) -> None:
    await stage.submit(repeatable("Sun, 06 Nov 1994 08:49:37 GMT"))
    for wrong in ("2026-11-24T08:00:00Z", "Tue, 24 Nov 26 08:00:00 GMT", "Tue, 31 Feb 2026 08:00:00 GMT"):
        refused(await stage.api.submit(headers=repeatable(wrong)), 400, "InvalidHeader")


async def tolerates_headers(stage: Stage) -> None:
    headers = {"X-Gateway": "7", "Unheard-Of": "", "x-ms-useragent": "azsdk"}
    operation_id = (await stage.submit(headers)).json()["id"]
    assert (await stage.api.client.get(f"/status/{operation_id}", headers=headers)).status_code == 200


async def tolerates_tracing(stage: Stage) -> None:
    for traceparent in (f"00-{'a' * 32}-{'b' * 16}-01", "nonsense"):
        await stage.submit({"traceparent": traceparent, "tracestate": "a=b", "baggage": "c=d", "b3": "0"})


async def tolerates_versions(stage: Stage) -> None:
    for version in ("2026-01-01", "2026-01-01-preview", ""):
        await stage.submit(path=f"{PATH}?api-version={version}")


async def tolerates_versions_in_polls(stage: Stage) -> None:
    location = (await stage.submit()).headers["Operation-Location"]
    for version in ("2026-01-01", "1999-01-01"):
        assert (await stage.api.client.get(f"{location}?api-version={version}")).status_code == 200


async def refuses_unknown_parameters(stage: Stage) -> None:
    location = (await stage.submit()).headers["Operation-Location"]
    for answer in (
        await stage.api.submit(f"{PATH}?api-version=2026-01-01&verbose=1"),
        await stage.api.client.get(f"{location}?verbose=1"),
    ):
        refused(answer, 400, "InvalidParameter")
        assert answer.json()["error"]["target"] == "verbose"
    assert await stored_messages(stage.link) == 1


async def answers_200(stage: Stage) -> None:
    for status in STATUSES:
        answer = await stage.api.status(await stage.bring(status))
        assert (answer.status_code, answer.json()["status"]) == (200, status)


async def has_the_structure(stage: Stage) -> None:
    for status in STATUSES:
        monitor = (await stage.api.status(await stage.bring(status))).json()
        assert monitor.keys() >= {"id", "kind", "status"}
        assert monitor["kind"] == "book:upload-start"
        assert ("result" in monitor, "error" in monitor) == (status == "Succeeded", status == "Failed")
        assert None not in monitor.values()


async def has_the_result(stage: Stage) -> None:
    assert (await stage.api.status(await stage.bring("Succeeded"))).json()["result"] == RESULT


async def says_when_to_poll(stage: Stage) -> None:
    for status in STATUSES:
        answer = await stage.api.status(await stage.bring(status))
        assert answer.headers.get("Retry-After") == (None if status in ENDS else str(PACE))


async def keeps_a_day(stage: Stage) -> None:
    for status, end in ENDS.items():
        story = await OperationStory.of(stage.journal, await stage.bring("Running"))
        await story.append(end, at=datetime.now(UTC) - timedelta(days=1, seconds=-30))
        assert (await stage.api.status(story.operation.id)).json()["status"] == status
    assert re.search(r"^\| `retention` \| 86400 \| .* a day at least", ACTIONS.read_text("utf-8"), re.MULTILINE)


async def cancels(stage: Stage) -> None:
    for status, told in {"NotStarted": "Canceled", "Running": "Running", "Canceled": "Canceled"}.items():
        operation_id = await stage.bring(status)
        answer = await stage.api.client.post(f"/status/{operation_id}:cancel?api-version=2026-01-01")
        assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (200, operation_id, told)
        if status == "Running":
            await (await OperationStory.of(stage.journal, operation_id)).append(ENDS["Canceled"])
        assert (await stage.api.status(operation_id)).json()["status"] == "Canceled"
    for status in ("Succeeded", "Failed"):
        operation_id = await stage.bring(status)
        refused(await stage.api.client.post(f"/status/{operation_id}:cancel"), 409, "OperationFinished")


async def errors(stage: Stage) -> list[httpx.Response]:
    """Return one response of each error status that a client can cause by itself."""
    client = stage.api.client
    done = await stage.bring("Succeeded")
    return [
        await stage.api.submit(body={}),
        await client.get("/status/nobody"),
        await client.get("/nowhere/at/all"),
        await client.delete("/healthz"),
        await client.post(f"/status/{done}:cancel"),
        await client.post(PATH, content=b" " * 5 * 2**20, headers={"Content-Type": JSON}),
        await client.post(PATH, content=b"<a/>", headers={"Content-Type": "text/xml"}),
    ]


async def repeats_the_code(stage: Stage) -> None:
    answers = await errors(stage)
    assert [answer.status_code for answer in answers] == [400, 404, 404, 405, 409, 413, 415]
    for answer in answers:
        assert answer.headers["x-ms-error-code"] == answer.json()["error"]["code"]


async def has_error_bodies(stage: Stage) -> None:
    for answer in await errors(stage):
        (error,) = answer.json().values()
        assert answer.headers["Content-Type"] == JSON
        assert all(isinstance(error[name], str) and error[name] for name in ("code", "message"))
        assert error.keys() <= {"code", "message", "target", "details"}


async def has_request_ids(stage: Stage) -> None:
    answers = [await stage.submit(), await stage.api.status(await stage.bring("Running")), *await errors(stage)]
    ids = [UUID(answer.headers["x-ms-request-id"]) for answer in answers]
    assert len(set(ids)) == len(answers)


async def listed(stage: Stage, **parameters: str) -> dict[str, Any]:
    """A page of a list, in which there are three operations."""
    stage.index.write(*(row(number, status=("Failed", "Running", "Succeeded")[number]) for number in range(3)))
    answer = await stage.api.client.get("/status", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def lists_in_value(stage: Stage) -> None:
    assert [item["id"] for item in (await listed(stage))["value"]] == ["own-2", "own-1", "own-0"]


async def links_absolutely(stage: Stage) -> None:
    link = (await listed(stage, maxpagesize="2", select="status"))["nextLink"]
    assert link.startswith(f"{stage.api.url}/status?")
    assert (await stage.api.client.get(link)).json()["value"] == [{"id": "own-0", "status": "Failed"}]


async def ends_without_a_link(stage: Stage) -> None:
    assert "nextLink" not in await listed(stage, maxpagesize="3")


async def filters_by_precedence(stage: Stage) -> None:
    text = "id eq 'own-0' or id eq 'own-1' and not status eq 'Running' or status eq 'Succeeded' and version lt 2"
    found = await listed(stage, filter=f"kind eq 'book:print' and ({text})")
    assert [item["id"] for item in found["value"]] == ["own-2", "own-0"]


async def refuses_unknown_parameters_of_lists(stage: Stage) -> None:
    for name in ("top", "$filter", "Filter"):
        answer = await stage.api.client.get("/status", params={name: "1"})
        refused(answer, 400, "InvalidParameter")
        assert answer.json()["error"]["target"] == name


async def orders_ascending(stage: Stage) -> None:
    assert [item["id"] for item in (await listed(stage, orderby="createdAt"))["value"]] == ["own-0", "own-1", "own-2"]


async def returns_fewer(stage: Stage) -> None:
    assert len((await listed(stage, maxpagesize="999999"))["value"]) == 3


VALIDATED: Final = "validated before anything is recorded"
IDENTICAL: Final = "the identical request: the same 202, no second operation"
REPEATABILITY: Final = "Repeatability-Request-ID and Repeatability-First-Sent"
TOLERATED: Final = "unknown headers and api-version are tolerated"
PARTS: Final = "result only when Succeeded, error only when Failed"
CODE: Final = "x-ms-error-code equals code"
OPTIONAL_VERSION: Final = "they require it; opstream has one version, and paths that it has to keep"

TABLE: Final = [
    Row("lro-valid-inputs-synchronously", VALIDATED, "a wrong input is refused at once", validates_first),
    Row("rest-fail-for-unknown-fields", "unknown fields are refused", "no field is ignored", refuses_unknown_fields),
    Row("lro-returns-202", "202 Accepted", "beginning an operation answers 202", accepts),
    Row("lro-returns-operation-location", "Operation-Location", "an absolute URL, that works", names_the_monitor),
    Row(
        "long-running-action-operations",
        "Retry-After of the 202",
        "a monitor that is not terminal comes with a pace",
        says_when_to_poll_first,
        page=CONSIDERATIONS,
    ),
    Row("lro-returns-status-monitor", "the monitor as body", "the 202 has what a GET has", answers_with_the_monitor),
    Row("lro-returns-only-202", "never another 2xx", "202 also for what has ended", accepts_once_it_has_ended),
    Row("lro-operation-id-request-header", "Operation-Id", "the client may name the operation", takes_an_id),
    Row("lro-existing-resource", IDENTICAL, "the same id and input: the same answer", repeats),
    Row(
        "lro-operation-id-unique-except-retries",
        "another request: OperationIdReused",
        "an id that is taken is refused",
        refuses_another_request,
        differs="they have said 409 since 2024, and 400 before, as the contract does",
    ),
    Row("lro-operation-id-default-is-guid", "absent: a UUIDv7", "without an id the service makes one", makes_an_id),
    Row("repeatability-headers", REPEATABILITY, "POST is repeatable as OASIS has it", repeats_by_pair),
    Row("actions-support-repeatability-headers", REPEATABILITY, "so are actions", names_one_request_by_pair),
    Row("http-header-date-values", REPEATABILITY, "a date in a header is an HTTP date", takes_http_dates),
    Row("http-allow-unrecognized-headers", TOLERATED, "a header that nobody knows does no harm", tolerates_headers),
    Row("telemetry-allow-unrecognized-headers", TOLERATED, "nor does one of tracing", tolerates_tracing),
    Row(
        "versioning-api-version-query-param",
        TOLERATED,
        "clients send the API's version",
        tolerates_versions,
        differs=OPTIONAL_VERSION,
    ),
    Row(
        "lro-status-monitor-accepts-any-api-version",
        TOLERATED,
        "who polls may have another version than who began",
        tolerates_versions_in_polls,
    ),
    Row(
        "http-parameter-validation",
        "other query parameters are refused",
        "no query parameter is ignored",
        refuses_unknown_parameters,
    ),
    Row("lro-status-monitor-get-returns-200", "always 200", "a failed operation is no failed GET", answers_200),
    Row("lro-status-monitor-structure", PARTS, "each status has its members", has_the_structure),
    Row("lro-status-monitor-post-action-result", PARTS, "an action's monitor has its result", has_the_result),
    Row("lro-status-monitor-retry-after", "Retry-After of a status", "until it is terminal", says_when_to_poll),
    Row("lro-status-monitor-retention", "kept at least 24 hours", "kept for a day, and documented", keeps_a_day),
    Row(
        "controlling-a-long-running-operation",
        "POST :cancel",
        "a POST on the monitor, answered with the monitor",
        cancels,
        page=CONSIDERATIONS,
    ),
    Row("rest-error-code-header-and-body-match", CODE, "header and body have one code", repeats_the_code),
    Row("rest-error-response-body-structure", CODE, "an error has one shape", has_error_bodies),
    Row("collections-response-array-name", "the field value", "a list is an object with value", lists_in_value),
    Row(
        "collections-include-nextlink-for-more-results", "nextLink is absolute", "it can be followed", links_absolutely
    ),
    Row(
        "collections-no-nextlink-on-last-page", "no nextLink at the end", "the last page has none", ends_without_a_link
    ),
    Row("collections-filter-operator-ordering", "operators", "not, then and, then or", filters_by_precedence),
    Row(
        "collections-error-on-unknown-parameter",
        "unknown parameters of a list",
        "none is ignored",
        refuses_unknown_parameters_of_lists,
    ),
    Row("collections-orderby-ordering", "ascending by itself", "asc is the default of a field", orders_ascending),
    Row("collections-maxpagesize-might-return-fewer", "fewer items", "the size is a bound", returns_fewer),
    Row("http-header-request-id", "x-ms-request-id", "each answer has an id of its own", has_request_ids),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.anchor) for row in TABLE])
async def test_guideline(stage: Stage, row: Row) -> None:
    """The service keeps the rule as the contract adopts it."""
    await row.check(stage)


def test_every_mark_has_a_row() -> None:
    """All rules that the contract marks are in the table, each anchor once."""
    assert len({row.mark for row in TABLE}) == MARKS
    assert len({row.anchor for row in TABLE}) == len(TABLE)
