"""Schedules on a real broker: what callers can do, what is submitted of them, and that each moment is one operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_journal.schedules.schedule_stream import ScheduleStream
from opstream_schemas import subjects
from opstream_schemas.events import Failed, Succeeded
from opstream_schemas.schedules.schedule import MAX_BACKFILL
from tests.support.api.service import INPUT, Api, OperationStory, failure, serving, spec, started, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

HOURLY: Final[dict[str, Any]] = {"action": "book:upload-start", "resourceId": "42", "input": INPUT, "cron": "0 * * * *"}
HOUR: Final = timedelta(hours=1)


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def put(api: Api, name: str = "nightly", **changes: Any) -> httpx.Response:
    """Make a schedule, or change it; a member that is None is left out."""
    body = {key: value for key, value in (HOURLY | changes).items() if value is not None}
    return await api.client.put(f"/schedules/{name}", json=body)


async def history(api: Api, name: str = "nightly") -> list[dict[str, Any]]:
    """What became of its moments."""
    found: list[dict[str, Any]] = (await api.client.get(f"/schedules/{name}/history")).json()["value"]
    return found


def next_hour(number: int = 1) -> datetime:
    """The full hour that comes as the n-th from now."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + number * HOUR


def own_id(moment: datetime) -> str:
    """The id of the operation of a moment."""
    return f"sched-nightly-{moment:%Y%m%dT%H%M%SZ}"


async def test_a_schedule(api: Api) -> None:
    """It is made, read, listed, changed and deleted, and says when it is due next."""
    made = await put(api)
    assert (made.status_code, made.json()["status"]) == (201, "Active")
    assert made.json() == (await api.client.get("/schedules/nightly")).json()
    assert datetime.fromisoformat(made.json()["nextAt"]) == next_hour()
    assert {key: made.json()[key] for key in HOURLY} == HOURLY
    changed = await put(api, cron=None, every=900)
    assert (changed.status_code, changed.json()["every"]) == (200, 900)
    assert changed.json()["createdAt"] == made.json()["createdAt"]
    await put(api, "other", paused=True)
    listed = (await api.client.get("/schedules")).json()["value"]
    assert [(one["name"], one["status"]) for one in listed] == [("nightly", "Active"), ("other", "Paused")]
    assert (await api.client.delete("/schedules/nightly")).status_code == 204
    assert (await api.client.get("/schedules/nightly")).json()["error"]["code"] == "ScheduleNotFound"
    assert (await put(api)).status_code == 201


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cron": "0 25 * * *"}, "InvalidInput"),
        ({"cron": None}, "InvalidInput"),
        ({"timeZone": "Mars/Phobos"}, "InvalidInput"),
        ({"every": 60}, "InvalidInput"),
        ({"input": {"title": 1}}, "InvalidInput"),
        ({"action": "book:unknown"}, "UnknownAction"),
        ({"extra": 1}, "InvalidInput"),
        ({"input": {"title": "x" * 70_000}}, "PayloadTooLarge"),
    ],
)
async def test_what_is_no_schedule(api: Api, changes: dict[str, Any], code: str) -> None:
    """It is refused before anything is stored."""
    refused = await put(api, **changes)
    assert (refused.json()["error"]["code"], refused.status_code // 100) == (code, 4)
    assert (await api.client.get("/schedules")).json() == {"value": []}


async def test_paths_and_methods(api: Api) -> None:
    """Names that are none are unknown, other methods are refused, and so are other queries."""
    await put(api)
    for path in ("/schedules/No%20name", "/schedules/Upper", "/schedules/none", "/schedules/none:preview"):
        assert (await api.client.get(path)).status_code == 404
    for method, path in (
        ("POST", "/schedules"),
        ("POST", "/schedules/nightly"),
        ("PUT", "/schedules/nightly:trigger"),
        ("DELETE", "/schedules/nightly/history"),
        ("OPTIONS", "/schedules/nightly"),
        ("TRACE", "/schedules"),
        ("TRACE", "/schedules/nightly"),
        ("TRACE", "/schedules/nightly/history"),
        ("PATCH", "/schedules/nightly:trigger"),
    ):
        assert (await api.client.request(method, path)).status_code == 405
    assert (await api.client.post("/schedules/nightly:launch")).status_code == 404
    assert (await api.client.get("/schedules?limit=3")).status_code == 400
    assert (await api.client.get("/schedules/nightly:preview?count=0")).status_code == 400


async def test_a_preview(api: Api) -> None:
    """It has the next moments, ten unless asked for more or fewer."""
    await put(api, cron="0 3 * * *", timeZone="Europe/Berlin")
    found = (await api.client.get("/schedules/nightly:preview?count=400")).json()
    assert found["error"]["target"] == "count"
    days = (await api.client.get("/schedules/nightly:preview?count=3")).json()["value"]
    assert len((await api.client.get("/schedules/nightly:preview")).json()["value"]) == 10
    assert len(days) == 3
    assert {datetime.fromisoformat(one).hour for one in days} <= {1, 2}


async def test_what_is_due_is_submitted_once(api: Api, link: Connection) -> None:
    """Each moment is one operation with an id that follows from it, however often it is looked for."""
    await put(api)
    assert await history(api) == []
    later = next_hour(1) + timedelta(minutes=1)
    for _ in range(3):
        await api.schedules.ticker.tick(later)
    stored = await stored_messages(link)
    await api.schedules.ticker.tick(later + timedelta(minutes=58))
    assert await stored_messages(link) == stored
    await api.schedules.ticker.tick(later + HOUR)
    assert [(one["outcome"], one["operationId"]) for one in await history(api)] == [
        ("submitted", own_id(next_hour(1))),
        ("submitted", own_id(next_hour(2))),
    ]
    monitor = (await api.status(own_id(next_hour(1)))).json()
    assert (monitor["status"], monitor["kind"], monitor["resourceId"]) == ("NotStarted", "book:upload-start", "42")


async def test_two_processes_are_one(api: Api, broker: Broker) -> None:
    """Two services that look at the same time submit each moment once, and record it once."""
    async with serving(broker.url) as other:
        await put(api)
        await other.schedules.book.refresh()
        later = next_hour(1) + timedelta(minutes=1)
        await asyncio.gather(api.schedules.ticker.tick(later), other.schedules.ticker.tick(later))
        await asyncio.gather(*(one.schedules.book.refresh() for one in (api, other)))
        await asyncio.gather(api.schedules.ticker.tick(later), other.schedules.ticker.tick(later))
    assert [one["operationId"] for one in await history(api)] == [own_id(next_hour(1))]


async def test_a_process_that_died_before_the_record(api: Api, journal: Journal, link: Connection) -> None:
    """What it has submitted is found by the next one, and recorded; an id of another request is refused for good."""
    await put(api)
    state = await ScheduleStream(link, lambda _tenant, key: key).state("nightly")
    assert state is not None
    other = msgspec.structs.replace(state.changed.definition, resource_id="7")
    first = await api.schedules.submits.submit(state.changed, own_id(next_hour(1)))
    second = await api.schedules.submits.submit(
        msgspec.structs.replace(state.changed, definition=other), own_id(next_hour(2))
    )
    assert first.accepted is not None
    assert second.accepted is not None
    for number in (1, 2):
        await api.schedules.ticker.tick(next_hour(number) + timedelta(minutes=1))
    first, second = await history(api)
    assert (first["outcome"], first["operationId"]) == ("submitted", own_id(next_hour(1)))
    assert len(await journal.events(own_id(next_hour(1)))) == 1
    assert (second["outcome"], second["detail"][:17]) == ("refused", "OperationIdReused")


async def test_what_was_missed(api: Api) -> None:
    """After a long time without a service only the last hour is made up for."""
    await put(api)
    now = next_hour(30) + timedelta(minutes=30)
    await api.schedules.ticker.tick(now)
    await api.schedules.ticker.tick(now)
    assert [(one["outcome"], one.get("operationId", "")) for one in await history(api)] == [
        ("missed", ""),
        ("submitted", own_id(next_hour(30))),
    ]


async def test_a_paused_schedule(api: Api) -> None:
    """Nothing of it is submitted, and what was due meanwhile is not made up for."""
    await put(api, paused=True)
    await api.schedules.ticker.tick(next_hour(1) + timedelta(minutes=1))
    assert await history(api) == []


async def test_a_pause(api: Api) -> None:
    """It is paused and goes on by a word, each time that it is said the same; what was due meanwhile is left out."""
    made = (await put(api)).json()
    for _ in range(2):
        paused = (await api.client.post("/schedules/nightly:pause")).json()
        assert (paused["status"], paused["paused"], "nextAt" in paused) == ("Paused", True, False)
    await api.schedules.ticker.tick(next_hour(1) + timedelta(minutes=1))
    assert await history(api) == []
    changed_at = set()
    for _ in range(2):
        resumed = (await api.client.post("/schedules/nightly:resume")).json()
        changed_at.add(resumed.pop("changedAt"))
        assert resumed == {name: value for name, value in made.items() if name != "changedAt"}
    assert len(changed_at) == 1
    assert (await api.client.get("/schedules/nightly:pause")).status_code == 405
    assert (await api.client.post("/schedules/none:pause")).json()["error"]["code"] == "ScheduleNotFound"


@pytest.mark.parametrize("is_failing", [True, False])
async def test_a_pause_after_a_failure(api: Api, journal: Journal, *, is_failing: bool) -> None:
    """With `pauseOnFailure` nothing follows an operation that has failed, until the schedule is set again."""
    await put(api, pauseOnFailure=True)
    await api.schedules.ticker.tick(next_hour(1) + timedelta(minutes=1))
    story = await OperationStory.of(journal, own_id(next_hour(1)))
    await story.append(started(), Failed(error=failure()) if is_failing else Succeeded(result=msgspec.Raw(b"{}")))
    await api.schedules.ticker.tick(next_hour(2) + timedelta(minutes=1))
    shown = (await api.client.get("/schedules/nightly")).json()
    assert shown["status"] == ("Paused" if is_failing else "Active")
    assert len(await history(api)) == (1 if is_failing else 2)
    if is_failing:
        assert own_id(next_hour(1)) in shown["pausedBecause"]
        assert (await put(api, pauseOnFailure=True)).json()["status"] == "Active"


async def test_a_trigger(api: Api) -> None:
    """It begins an operation now, also of a paused schedule, and is in the history."""
    await put(api, paused=True)
    answer = await api.client.post("/schedules/nightly:trigger")
    assert (answer.status_code, answer.json()["status"]) == (202, "NotStarted")
    operation_id = answer.headers["Operation-Id"]
    assert operation_id.startswith("trig-nightly-")
    assert answer.headers["Operation-Location"].endswith(f"/status/{operation_id}")
    assert [(one["cause"], one["operationId"]) for one in await history(api)] == [("trigger", operation_id)]


async def test_a_backfill(api: Api) -> None:
    """The moments of a time that has passed are made up for, each once; a later one, and too many, are refused."""
    await put(api)
    begin, end = next_hour(-2), next_hour(0)
    body = {"from": begin.isoformat(), "to": end.isoformat()}
    for _ in range(2):
        made = (await api.client.post("/schedules/nightly:backfill", json=body)).json()["value"]
        assert [one["operationId"] for one in made] == [own_id(next_hour(n)) for n in (-2, -1, 0)]
    assert {one["cause"] for one in await history(api)} == {"backfill"}
    for wrong in (
        {"from": begin.isoformat(), "to": next_hour(2).isoformat()},
        {"from": end.isoformat(), "to": begin.isoformat()},
        {"from": (end - (MAX_BACKFILL + 1) * HOUR).isoformat(), "to": end.isoformat()},
        {"from": "2026-01-01T00:00:00", "to": "2026-01-02T00:00:00"},
        {"from": "0001-01-01T00:00:00Z", "to": "0001-01-01T01:00:00Z"},
        {"from": "0001-01-01T00:00:00+14:00", "to": end.isoformat()},
        {"from": begin.isoformat(), "to": "9999-12-31T23:59:59-14:00"},
        {"from": "1969-12-31T23:59:59Z", "to": "1970-01-01T00:00:00Z"},
        {"from": "1970-01-01T00:00:00Z", "to": end.isoformat()},
        {},
    ):
        refused = await api.client.post("/schedules/nightly:backfill", json=wrong)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "InvalidInput")


async def test_what_others_write(api: Api, link: Connection) -> None:
    """Messages that are no schedules are passed over, and one that replaces a schedule's is no schedule."""
    await put(api)
    jetstream = link.nc.jetstream()
    await jetstream.publish(subjects.schedule_subject("junk", "changed"), b"{")
    await jetstream.publish(subjects.schedule_subject("nightly", "occurred"), b"[]")
    made = (
        await jetstream.get_last_msg(subjects.SCHEDULES_STREAM, subjects.schedule_subject("nightly", "changed"))
    ).data
    assert made is not None
    await jetstream.publish(subjects.schedule_subject("lost", "changed"), made.replace(b"0 * * * *", b"0 99 * * *"))
    assert [one["name"] for one in (await api.client.get("/schedules")).json()["value"]] == ["nightly"]
    await api.schedules.ticker.tick(next_hour(1) + timedelta(minutes=1))
    assert [one["operationId"] for one in await history(api)] == [own_id(next_hour(1))]
    assert (await api.client.get("/schedules/lost")).status_code == 404
    assert (await put(api, "lost")).status_code == 201


async def test_without_the_stream(api: Api, link: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that was not provisioned for schedules: the log says what to run, and everything else works."""
    await link.nc.jetstream().delete_stream(subjects.SCHEDULES_STREAM)
    refused = await put(api)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "JournalUnavailable")
    assert "opstream provision --update" in caplog.text
    assert (await api.submit()).status_code == 202
