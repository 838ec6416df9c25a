"""What a caller, and a stolen login of an API, can't do to the schedules of others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import pytest

from opstream_api.schedules import schedule_usage
from opstream_journal import Connection
from opstream_journal.schedules import schedule_stream
from opstream_schemas import subjects
from tests.support.access.desk import AccessDesk, CallerWithKey
from tests.support.api.service import INPUT

pytestmark = pytest.mark.broker

HOURLY: Final[dict[str, Any]] = {"action": "book:upload-start", "resourceId": "42", "input": INPUT, "cron": "0 * * * *"}


async def put(caller: CallerWithKey, name: str, **changes: Any) -> httpx.Response:
    """Make a schedule."""
    return await caller.client.put(f"/schedules/{name}", json=HOURLY | changes)


def code_of(response: httpx.Response) -> str:
    """The code of an error."""
    code: str = response.json()["error"]["code"]
    return code


def soon() -> datetime:
    """A time at which the schedules are due."""
    return datetime.now(UTC).replace(minute=1, second=0, microsecond=0) + timedelta(hours=1)


async def test_fresh_names_again_and_again(desk: AccessDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes and deletes schedules comes to the end of its names, and others make theirs."""
    small = schedule_usage._OF_CALLER._replace(schedules=3, names=5)
    monkeypatch.setattr(schedule_usage, "_OF_CALLER", small)
    ann = await desk.caller("acme", "ann", "submit", "read")
    bob = await desk.caller("acme", "bob", "submit", "read")
    for number in range(5):
        assert (await put(ann, f"n{number}")).status_code == 201
        assert (await ann.client.delete(f"/schedules/n{number}")).status_code == 204
    assert code_of(await put(ann, "n5")) == "TooManySchedules"
    for number in range(3):
        assert (await put(ann, f"n{number}")).status_code == 201
    refused = await put(ann, "n3")
    assert (refused.status_code, refused.json()["error"]["message"][:20]) == (409, "you have 3 schedules")
    assert (await put(bob, "n3")).status_code == 201
    assert (await put(ann, "n0")).status_code == 200


async def test_a_full_stream(desk: AccessDesk, link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """New schedules are refused while there is room for pauses and deletions. In a stream without any room a refusal
    says so, and each schedule that is due has its operation."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    bob = await desk.caller("evil", "bob", "submit", "read")
    for caller, name in ((ann, "a"), (ann, "b"), (bob, "c")):
        await put(caller, name)
    monkeypatch.setattr(schedule_stream, "MAX_SCHEDULE_EVENTS", 3)
    refused = await put(bob, "d")
    assert (refused.status_code, code_of(refused)) == (503, "JournalFull")
    assert "no room for more changes of schedules" in refused.json()["error"]["message"]
    assert (await ann.client.post("/schedules/a:pause")).status_code == 200
    assert code_of(await ann.client.post("/schedules/a:resume")) == "JournalFull"
    assert (await ann.client.delete("/schedules/a")).status_code == 204
    jetstream = link.nc.jetstream()
    info = await jetstream.stream_info(subjects.SCHEDULES_STREAM)
    info.config.max_msgs = info.state.messages
    await jetstream.update_stream(info.config)
    refused = await ann.client.post("/schedules/b:pause")
    assert (refused.status_code, code_of(refused)) == (503, "JournalFull")
    due = soon()
    with pytest.raises(schedule_stream.JournalFull):
        await desk.api.schedules.ticker.tick(due)
    operation_id = f"{due.replace(minute=0):%Y%m%dT%H%M%SZ}"
    assert (await ann.get(f"/status/sched-b-{operation_id}")).status_code == 200
    assert (await bob.get(f"/status/sched-c-{operation_id}")).status_code == 200


async def test_what_a_stolen_login_plants(desk: AccessDesk, link: Connection) -> None:
    """A schedule under a key that is not its own is none, and a record of a time to come silences nothing."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    await put(ann, "nightly")
    jetstream = link.nc.jetstream()
    key = desk.ids.stored_id("acme", "schedule/nightly")
    made = (await jetstream.get_last_msg(subjects.SCHEDULES_STREAM, subjects.schedule_subject(key, "changed"))).data
    assert made is not None
    planted = made.replace(b'"nightly"', b'"planted"')
    await jetstream.publish(subjects.schedule_subject("planted", "changed"), planted)
    other = desk.ids.stored_id("acme", "schedule/other")
    await jetstream.publish(subjects.schedule_subject(other, "changed"), planted)
    now = datetime.now(UTC).isoformat()
    forged = {"dueAt": now, "outcome": "submitted", "doneUntil": "2100-01-01T00:00:00Z", "recordedAt": now}
    await jetstream.publish(subjects.schedule_subject(key, "occurred"), msgspec.json.encode(forged))
    assert [one["name"] for one in (await ann.get("/schedules")).json()["value"]] == ["nightly"]
    assert (await ann.get("/schedules/other")).status_code == 404
    assert (await put(ann, "other", paused=True)).status_code == 201
    shown = (await ann.get("/schedules/nightly")).json()
    assert datetime.fromisoformat(shown["nextAt"]) == soon().replace(minute=0)
    await desk.api.schedules.ticker.tick(soon())
    operation_id = f"sched-nightly-{soon().replace(minute=0):%Y%m%dT%H%M%SZ}"
    assert (await ann.get(f"/status/{operation_id}")).status_code == 200
    assert (await ann.get(f"/status/sched-planted-{operation_id[-16:]}")).status_code == 404


async def test_the_next_owner_of_a_name(desk: AccessDesk) -> None:
    """It reads nothing of what became of the schedule that had the name before."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    bob = await desk.caller("acme", "bob", "submit", "read")
    await put(ann, "nightly")
    assert (await ann.client.post("/schedules/nightly:trigger")).status_code == 202
    assert len((await ann.get("/schedules/nightly/history")).json()["value"]) == 1
    await ann.client.delete("/schedules/nightly")
    made = await put(bob, "nightly")
    assert (made.status_code, "last" in made.json()) == (201, False)
    assert "last" not in (await bob.get("/schedules/nightly")).json()
    assert "last" not in (await bob.get("/schedules")).json()["value"][0]
    assert (await bob.get("/schedules/nightly/history")).json() == {"value": []}


async def test_the_same_again_takes_no_room(desk: AccessDesk, link: Connection) -> None:
    """A repeated request changes nothing, and stores nothing."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    made = await put(ann, "nightly")
    again = await put(ann, "nightly")
    assert (again.status_code, again.json()) == (200, made.json())
    info = await link.nc.jetstream().stream_info(subjects.SCHEDULES_STREAM)
    assert info.state.messages == 1
