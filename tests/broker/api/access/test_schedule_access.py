"""Whose schedules a caller may make, see and change, and that they stop with their caller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import pytest

from opstream_journal import Connection
from opstream_schemas.subjects import ACCESS_LOG_STREAM
from tests.support.access.desk import AccessDesk, CallerWithKey
from tests.support.api.service import INPUT
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

HOURLY: Final[dict[str, Any]] = {"action": "book:upload-start", "resourceId": "42", "input": INPUT, "cron": "0 * * * *"}
PATH: Final = "/schedules/nightly"


async def put(caller: CallerWithKey) -> httpx.Response:
    """Make the schedule."""
    return await caller.client.put(PATH, json=HOURLY)


def soon() -> datetime:
    """A time at which the schedule is due."""
    return datetime.now(UTC).replace(minute=1, second=0, microsecond=0) + timedelta(hours=1)


async def questions(caller: CallerWithKey, name: str) -> list[tuple[int, str]]:
    """Each way to ask for a schedule, with its answer."""
    path = f"/schedules/{name}"
    span = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    answers = [
        await caller.get(path),
        await caller.get(f"{path}/history"),
        await caller.get(f"{path}:preview"),
        await caller.client.delete(path),
        await caller.client.post(f"{path}:trigger"),
        await caller.client.post(f"{path}:backfill", json=span),
        await caller.client.post(f"{path}:pause"),
        await caller.client.post(f"{path}:resume"),
    ]
    return [(one.status_code, one.json()["error"]["code"]) for one in answers]


async def test_a_schedule_is_its_callers(desk: AccessDesk) -> None:
    """Others of the tenant and other tenants see none; `read:all` reads it and changes nothing."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    bob = await desk.caller("acme", "bob", "submit", "read")
    eve = await desk.caller("evil", "ann", "submit", "read", "read:all")
    auditor = await desk.caller("acme", "aud", "submit", "read:all")
    assert (await put(ann)).status_code == 201
    for caller in (bob, eve):
        assert (
            await questions(caller, "nightly") == await questions(caller, "no-such") == [(404, "ScheduleNotFound")] * 8
        )
        assert (await caller.get("/schedules")).json() == {"value": []}
    assert (await put(bob)).json()["error"]["code"] == "ScheduleNameTaken"
    assert (await put(eve)).status_code == 201
    assert (await auditor.get(PATH)).json()["caller"] == "ann"
    assert (await auditor.client.delete(PATH)).status_code == 403
    assert (await auditor.client.post(f"{PATH}:pause")).status_code == 403
    assert (await ann.get(PATH)).json()["status"] == "Active"


async def test_what_scopes_allow(desk: AccessDesk) -> None:
    """To make, trigger or delete one takes the right to submit its action; to read it, `read`."""
    reader = await desk.caller("acme", "ann", "read")
    writer = await desk.caller("acme", "ann", "submit:book:upload-start")
    other = await desk.caller("acme", "ann", "submit:shelf:index")
    assert [(await put(one)).status_code for one in (reader, other, writer)] == [403, 403, 201]
    assert (await writer.get(PATH)).status_code == 403
    assert (await reader.get(PATH)).status_code == 200
    assert (await other.client.post(f"{PATH}:trigger")).status_code == 403
    assert (await reader.client.delete(PATH)).status_code == 403
    assert (await writer.client.post(f"{PATH}:trigger")).status_code == 202
    assert (await desk.api.client.get("/schedules")).status_code == 401


async def test_operations_are_the_callers(desk: AccessDesk) -> None:
    """What begins belongs to who made the schedule, in its tenant."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    await put(ann)
    await desk.api.schedules.ticker.tick(soon())
    operation_id = f"sched-nightly-{soon().replace(minute=0):%Y%m%dT%H%M%SZ}"
    assert (await ann.get(f"/status/{operation_id}")).json()["id"] == operation_id


async def test_an_administrators_pause_takes_nothing_away(desk: AccessDesk, link: Connection) -> None:
    """The schedule stays its caller's, and goes on in its name; the caller itself has it go on with another key. What
    the administrator did is in the access log, what the caller did is not."""
    ann = await desk.caller("acme", "ann", "submit", "read")
    again = await desk.caller("acme", "ann", "submit", "read")
    root = await desk.caller("acme", "root", "admin")
    await put(ann)
    assert (await root.client.post(f"{PATH}:pause")).json()["status"] == "Paused"
    shown = (await root.client.post(f"{PATH}:resume")).json()
    assert (shown["status"], shown["caller"]) == ("Active", "ann")
    await desk.api.schedules.ticker.tick(soon())
    await desk.revoke(ann)

    async def is_gone() -> bool:
        return (await ann.get("/openapi.json")).status_code == 401

    await eventually(is_gone, within=5)
    await again.client.post(f"{PATH}:pause")
    assert (await again.client.post(f"{PATH}:resume")).json()["status"] == "Active"
    await desk.api.schedules.ticker.tick(soon() + timedelta(hours=1))
    assert [one["outcome"] for one in (await again.get(f"{PATH}/history")).json()["value"]] == ["submitted"] * 2
    assert (await root.client.post(f"{PATH}:trigger")).status_code == 202
    assert (await root.client.delete(PATH)).status_code == 204

    async def is_recorded() -> bool:
        info = await link.nc.jetstream().stream_info(ACCESS_LOG_STREAM, subjects_filter="access_log.act.>")
        return (info.state.subjects or {}).get("access_log.act.schedule-changed") == 4

    await eventually(is_recorded, within=5)
    record = (await link.nc.jetstream().get_last_msg(ACCESS_LOG_STREAM, "access_log.act.schedule-changed")).data
    assert record is not None
    shown = msgspec.json.decode(record)
    assert (shown["by"], shown["tenant"], shown["target"], shown["detail"]) == (
        *("root", "acme"),
        *("nightly", "deleted, of acme/ann"),
    )


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_it_stops_with_its_caller(desk: AccessDesk, how: str) -> None:
    """Once the key with which it was set is revoked or has expired, nothing begins any more, and it says why."""
    ann = await desk.caller("acme", "ann", "submit", "read", lifetime=1.5 if how == "expired" else None)
    again = await desk.caller("acme", "ann", "submit", "read")
    await put(ann)
    if how != "expired":
        await desk.revoke(ann)

    async def is_gone() -> bool:
        return (await ann.get("/openapi.json")).status_code == 401

    await eventually(is_gone, within=5)
    await desk.api.schedules.ticker.tick(soon())
    shown = (await again.get(PATH)).json()
    assert (shown["status"], shown["pausedBecause"][:13]) == ("Paused", "CallerRevoked")
    assert (await again.get(f"{PATH}/history")).json() == {"value": []}
    assert (await put(again)).json()["status"] == "Active"
    await desk.api.schedules.ticker.tick(soon())
    assert len((await again.get(f"{PATH}/history")).json()["value"]) == 1
