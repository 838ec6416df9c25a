"""`Operation-Label`: which labels the API accepts, that it stores them, and that they are no part of the request."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Requested
from tests.support.api.service import INPUT, Api, serving, spec
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker


async def labels_of(journal: Journal, operation_id: str) -> dict[str, str] | None:
    data = (await journal.events(operation_id))[0].data
    assert isinstance(data, Requested)
    return data.labels


async def posted(api: Api, headers: Sequence[tuple[str, str]]) -> httpx.Response:
    """Submit with headers that may repeat."""
    sent = [
        (name.encode(), value.encode("latin-1")) for name, value in (("Content-Type", "application/json"), *headers)
    ]
    return await api.client.post("/book/42:upload-start", content=msgspec.json.encode(INPUT), headers=sent)


async def test_they_are_recorded_and_shown(broker: Broker, link: Connection, journal: Journal) -> None:
    """Repeated headers and lists are one set of labels, in the event and in the status; without there is no member."""
    await announce_action(link, spec())
    headers = [
        ("Operation-Id", "a"),
        ("Operation-Label", "team=press, run/no.=7 = seven"),
        ("operation-label", "b-c=d"),
    ]
    async with serving(broker.url) as api:
        answered = await posted(api, headers)
        await api.submit(headers={"Operation-Id": "b"})
        shown, without = (await api.status("a")).json(), (await api.status("b")).json()
    wanted = {"team": "press", "run/no.": "7 = seven", "b-c": "d"}
    assert answered.status_code == 202, answered.text
    assert (answered.json()["labels"], shown["labels"]) == (wanted, wanted)
    assert "labels" not in without
    assert await labels_of(journal, "a") == wanted
    assert await labels_of(journal, "b") is None


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "must be key=value"),
        ("team", "must be key=value"),
        ("team=", "must be key=value"),
        ("Team=press", "must be key=value"),
        ("1=one", "must be key=value"),
        ("team=press,", "must be key=value"),
        ("team=press,\ta=b", "must be key=value"),
        ("t\u00e9am=press", "must be key=value"),
        ("team=pr\u00e9sse", "must be key=value"),
        ("k" * 64 + "=v", "must be key=value"),
        ("k=" + "v" * 129, "must be key=value"),
        ("team=press, team=sales", "is there twice"),
        (",".join(f"k{number}=v" for number in range(17)), "an operation can have 16"),
    ],
)
async def test_other_labels_are_refused(broker: Broker, link: Connection, value: str, complaint: str) -> None:
    """Anything else is a 400 that names the header, and nothing is stored."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        answered = await posted(api, [("Operation-Id", "a"), ("Operation-Label", value)])
        assert (await api.status("a")).status_code == 404
    error = answered.json()["error"]
    assert (answered.status_code, error["code"], error["target"]) == (400, "InvalidHeader", "Operation-Label")
    assert complaint in error["message"]


async def test_a_repetition_keeps_those_of_the_first(broker: Broker, link: Connection) -> None:
    """The same request with other labels, or none, is the same operation, with the labels that it has."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        for labels in ({"Operation-Label": "team=press"}, {"Operation-Label": "team=sales"}, {}):
            answered = await api.submit(headers={"Operation-Id": "a", **labels})
            assert (answered.status_code, answered.json()["labels"]) == (202, {"team": "press"})
