"""`Operation-Callback`: which URLs the API accepts, that it stores them, and that they are part of the request."""

from __future__ import annotations

from typing import Any

import pytest

from opstream_api.http.callback_header import CallbackPolicy
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Requested
from tests.support.api.service import serving, spec
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

POLICY = CallbackPolicy.parse(["hooks.example.org", "*.example.net"])
GOOD = "https://hooks.example.org/x?token=1"


async def callback_of(journal: Journal, operation_id: str) -> str:
    data = (await journal.events(operation_id))[0].data
    assert isinstance(data, Requested)
    return data.callback


async def test_it_is_recorded(broker: Broker, link: Connection, journal: Journal) -> None:
    """The URL is stored with the request, unchanged; without the header there is none."""
    await announce_action(link, spec())
    async with serving(broker.url, callbacks=POLICY) as api:
        answered = await api.submit(headers={"Operation-Id": "a", "operation-callback": GOOD})
        assert (await api.submit(headers={"Operation-Id": "b"})).status_code == 202
    assert answered.status_code == 202
    assert await callback_of(journal, "a") == GOOD
    assert await callback_of(journal, "b") == ""


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("http://hooks.example.org/", "must begin with https://"),
        ("https://me@hooks.example.org/", "no user or password"),
        ("https://hooks.example.org/#x", "no fragment"),
        ("/hook", "must be absolute"),
        ("", "must be absolute"),
        ("https://hooks.example.org/" + "x" * 3000, "2048 are allowed"),
        ("https://evil.example/", "does not allow calls to evil.example"),
        ("https://example.net/", "does not allow calls to example.net"),
        ("https://hooks.example.org:8443/", "does not allow calls to hooks.example.org:8443"),
    ],
)
async def test_other_urls_are_refused(broker: Broker, link: Connection, value: str, complaint: str) -> None:
    """Anything but an https URL of an allowed host is a 400 that names the header, and nothing is stored."""
    await announce_action(link, spec())
    async with serving(broker.url, callbacks=POLICY) as api:
        answered = await api.submit(headers={"Operation-Id": "a", "Operation-Callback": value})
        assert (await api.status("a")).status_code == 404
    _assert_refused(answered, complaint)


async def test_no_callbacks_unless_allowed(broker: Broker, link: Connection) -> None:
    """A service without allowed hosts refuses every callback; two callbacks are refused by any service."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        _assert_refused(await api.submit(headers={"Operation-Callback": GOOD}), "delivers no callbacks")
    async with serving(broker.url, callbacks=POLICY) as api:
        twice = [("Operation-Callback", GOOD), ("Operation-Callback", GOOD)]
        answered = await api.client.post("/book/42:upload-start", json={}, headers=twice)
        _assert_refused(answered, "was sent 2 times")


async def test_it_is_part_of_the_request(broker: Broker, link: Connection) -> None:
    """The same id with the same callback is the same operation; with another one, or none, it is refused."""
    await announce_action(link, spec())
    async with serving(broker.url, callbacks=POLICY) as api:
        answers = [
            await api.submit(headers={"Operation-Id": "a", **headers})
            for headers in (
                {"Operation-Callback": GOOD},
                {"Operation-Callback": GOOD},
                {"Operation-Callback": GOOD + "2"},
                {},
            )
        ]
    assert [one.status_code for one in answers] == [202, 202, 400, 400]
    assert {one.json()["error"]["code"] for one in answers[2:]} == {"OperationIdReused"}


def _assert_refused(answered: Any, complaint: str) -> None:
    error = answered.json()["error"]
    assert (answered.status_code, error["code"], error["target"]) == (400, "InvalidHeader", "Operation-Callback")
    assert complaint in error["message"]
