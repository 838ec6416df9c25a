"""Schedules in the Python clients: what is sent, and what becomes of an answer."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest

from opstream import AsyncOperationsClient, InvalidRequest, OperationsClient, RequestRefused, ServiceUnavailable
from opstream.client.schedules.calls import AsyncScheduleCalls, ScheduleCalls
from tests.support.client.scripted_server import Reset, ScriptedServer, answer, json_answer

pytestmark = pytest.mark.unit

AT: Final = datetime(2026, 11, 24, 8, tzinfo=UTC)
NIGHTLY: Final = {
    "name": "nightly",
    "status": "Active",
    "action": "book:reindex",
    "cron": "30 3 * * *",
    "timeZone": "Europe/Berlin",
    "input": {"n": 1.10},
    "createdAt": "2026-11-24T08:00:00Z",
    "changedAt": "2026-11-24T08:00:00Z",
    "nextAt": "2026-11-25T02:30:00Z",
    "extra": "of a later version",
}
MONITOR: Final = {"id": "trig-nightly-1", "status": "NotStarted", "kind": "book:reindex"}


def test_calls() -> None:
    """Both clients have the same ones, with the same arguments."""
    sync, waited = (
        {name: inspect.signature(call).parameters for name, call in inspect.getmembers(calls, inspect.isfunction)}
        for calls in (ScheduleCalls, AsyncScheduleCalls)
    )
    assert sync.keys() == waited.keys()
    assert {name: one for name, one in sync.items() if name[0] != "_"} == {
        name: one for name, one in waited.items() if name[0] != "_"
    }


def test_a_schedule() -> None:
    """It is set, read, listed, paused and deleted; what is sent is the contract's."""
    answers = [json_answer(201, NIGHTLY), json_answer(200, NIGHTLY), json_answer(200, {"value": [NIGHTLY]})]
    answers += [json_answer(200, NIGHTLY | {"status": "Paused"}), json_answer(200, NIGHTLY), answer(204)]
    with ScriptedServer(*answers) as server, OperationsClient(server.url) as client:
        made = client.schedules.set("nightly", {"action": "book:reindex", "cron": "30 3 * * *"})
        assert (made.name, made.time_zone) == ("nightly", "Europe/Berlin")
        assert made.next_at == datetime(2026, 11, 25, 2, 30, tzinfo=UTC)
        assert client.schedules.get("nightly") == made == client.schedules.list()[0]
        assert client.schedules.pause("nightly").status == "Paused"
        assert client.schedules.resume("nightly").status == "Active"
        client.schedules.delete("nightly")
        assert [(one.method, one.path) for one in server.heard] == [
            ("PUT", "/schedules/nightly"),
            ("GET", "/schedules/nightly"),
            ("GET", "/schedules"),
            ("POST", "/schedules/nightly:pause"),
            ("POST", "/schedules/nightly:resume"),
            ("DELETE", "/schedules/nightly"),
        ]
        assert msgspec.json.decode(server.heard[0].body) == {"action": "book:reindex", "cron": "30 3 * * *"}


def test_moments() -> None:
    """When it is due, what became of that, and what is made up for."""
    due = {"dueAt": "2026-11-24T08:00:00Z"}
    record = {"outcome": "submitted", "operationId": "sched-1", "recordedAt": due["dueAt"], **due}
    answers = [{"value": [due["dueAt"]]}, {"value": [record]}, {"value": [due | {"detail": "Forbidden: no"}]}]
    with ScriptedServer(*(json_answer(200, one) for one in answers)) as server, OperationsClient(server.url) as client:
        assert client.schedules.preview("nightly", 1) == (AT,)
        (past,) = client.schedules.history("nightly")
        assert (past.due_at, past.operation_id, past.cause) == (AT, "sched-1", "schedule")
        (missed,) = client.schedules.backfill("nightly", AT, AT)
        assert (missed.operation_id, missed.detail) == ("", "Forbidden: no")
        assert server.heard[0].path == "/schedules/nightly:preview?count=1"
        assert msgspec.json.decode(server.heard[2].body) == {"from": due["dueAt"], "to": due["dueAt"]}


def test_a_trigger_is_sent_once() -> None:
    """Its operation can be followed. Without an answer it is not sent again, which would be a second operation."""
    headers = {"operation_id": "trig-nightly-1", "operation_location": "http://elsewhere.test/status/x"}
    with ScriptedServer(json_answer(202, MONITOR, **headers)) as server, OperationsClient(server.url) as client:
        operation = client.schedules.trigger("nightly")
        assert (operation.id, operation.url) == ("trig-nightly-1", f"{server.url}/status/trig-nightly-1")
    for lost in (Reset(), json_answer(503, {"error": {"code": "JournalUnavailable", "message": "no"}}, retry_after=1)):
        with ScriptedServer(lost) as server, OperationsClient(server.url) as client:
            with pytest.raises(ServiceUnavailable, match="look at the schedule's history before"):
                client.schedules.trigger("nightly")
            assert len(server.heard) == 1


def test_what_is_refused() -> None:
    """By the service with its code, by the client before anything is sent."""
    missing: dict[str, Any] = {"error": {"code": "ScheduleNotFound", "message": "there is no schedule 'x'"}}
    with ScriptedServer(json_answer(404, missing)) as server, OperationsClient(server.url) as client:
        with pytest.raises(RequestRefused, match="schedule x was refused: ScheduleNotFound"):
            client.schedules.get("x")
        for name in ("", "No", "a/b"):
            with pytest.raises(InvalidRequest):
                client.schedules.get(name)
        with pytest.raises(InvalidRequest, match="zone"):
            client.schedules.backfill("x", AT.replace(tzinfo=None), AT)
        with pytest.raises(InvalidRequest, match="JSON"):
            client.schedules.set("x", {"input": object()})
        assert len(server.heard) == 1


def test_the_other_client() -> None:
    """It does the same, awaited."""

    async def ask(url: str) -> list[str]:
        async with AsyncOperationsClient(url) as client:
            return [one.name for one in await client.schedules.list()]

    with ScriptedServer(json_answer(200, {"value": [NIGHTLY]})) as server:
        assert asyncio.run(ask(server.url)) == ["nightly"]
