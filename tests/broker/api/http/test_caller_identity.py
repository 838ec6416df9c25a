"""The recorded caller, through a real socket."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Canceled, CancelRequested, EventData, Requested
from opstream_schemas.status_monitor import request_hash
from tests.support.api.service import INPUT, UPLOAD, Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

HERE = (ipaddress.ip_network("127.0.0.0/8"),)
ANN = {"X-Forwarded-User": "ann@example.org", "X-Client-Id": "shop", "X-Forwarded-For": "203.0.113.9, 192.0.2.7"}
BOB = {"X-Forwarded-User": "bob@example.org"}


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service that trusts this machine."""
    await announce_action(link, spec())
    headers = {"identity_header": "X-Forwarded-User", "client_id_header": "X-Client-Id"}
    async with serving(broker.url, trusted_proxies=HERE, **headers) as api:
        yield api


async def datas(journal: Journal, operation_id: str) -> list[EventData | None]:
    """Return the data of an operation's events."""
    return [event.data for event in await journal.events(operation_id)]


async def test_the_caller_is_recorded(api: Api, journal: Journal) -> None:
    """Identity, application and address are in the first event, and the identity is part of the request's hash."""
    assert (await api.submit(headers={**ANN, "Operation-Id": "one"})).status_code == 202
    (data,) = await datas(journal, "one")
    assert isinstance(data, Requested)
    assert (data.caller, data.client_id, data.client_address) == ("ann@example.org", "shop", "192.0.2.7")
    assert data.request_hash == request_hash(UPLOAD, "42", INPUT, "ann@example.org")


async def test_an_id_belongs_to_its_caller(api: Api, journal: Journal) -> None:
    """The same caller gets the same operation, from any address; another caller is refused."""
    assert (await api.submit(headers={**ANN, "Operation-Id": "mine"})).status_code == 202
    elsewhere = {**ANN, "X-Forwarded-For": "198.51.100.1", "X-Client-Id": "phone", "Operation-Id": "mine"}
    assert (await api.submit(headers=elsewhere)).status_code == 202
    for other in (BOB, {}):
        refused = await api.submit(headers={**other, "Operation-Id": "mine"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "OperationIdReused")
    assert len(await datas(journal, "mine")) == 1


async def test_the_caller_of_a_cancel_is_recorded(api: Api, journal: Journal) -> None:
    """The caller of a cancel is in the cancel request if an attempt runs, and in the terminal event otherwise."""
    for operation_id in ("runs", "waits"):
        await api.submit(headers={**ANN, "Operation-Id": operation_id})
    await (await OperationStory.of(journal, "runs")).append(started())
    for operation_id in ("runs", "waits"):
        await api.client.post(f"/status/{operation_id}:cancel", headers=BOB)
    assert (await datas(journal, "runs"))[-1] == CancelRequested(by="bob@example.org")
    assert (await datas(journal, "waits"))[-1] == Canceled(by="bob@example.org")


async def test_an_invalid_identity(api: Api, journal: Journal) -> None:
    """It is refused before anything is stored, by a submit and by a cancel."""
    too_long = {"X-Forwarded-User": "a" * 257, "Operation-Id": "two"}
    refused = await api.submit(headers=too_long)
    assert (refused.status_code, refused.json()["error"]["target"]) == (400, "X-Forwarded-User")
    assert await datas(journal, "two") == []
    canceled = await api.client.post("/status/two:cancel", headers=too_long)
    assert (canceled.status_code, canceled.json()["error"]["code"]) == (400, "InvalidHeader")


async def test_without_a_trusted_proxy(broker: Broker, link: Connection, journal: Journal) -> None:
    """The address is the peer's, and what a client says about itself is ignored."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        await api.submit(headers={**ANN, "Operation-Id": "three"})
    (data,) = await datas(journal, "three")
    assert isinstance(data, Requested)
    assert (data.caller, data.client_id, data.client_address) == ("", "", "127.0.0.1")


async def test_the_longest_request_is_stored(api: Api, journal: Journal) -> None:
    """The longest names, each character escaped or of four bytes, fit into an event beside the largest body."""
    body = {"title": "x" * (256 * 1024 - len('{"title":""}'))}
    names = {"X-Forwarded-User": '"' * 256, "X-Client-Id": "\U0001f4d6" * 256}
    headers = {name: value.encode() for name, value in names.items()}
    answer = await api.submit("/book/42:upload-start", body, {**headers, "Operation-Id": "i" * 64})  # type: ignore[dict-item]
    assert answer.status_code == 202
    (data,) = await datas(journal, "i" * 64)
    assert isinstance(data, Requested)
    assert (data.caller, data.client_id) == tuple(names.values())
