"""Authentication is switched on for operations that are there already, and beside services of an earlier version."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal, NotProvisioned, SnapshotStore, announce_action
from opstream_journal.stores.access_bucket import AccessBucket
from opstream_schemas import subjects
from opstream_schemas.events import Succeeded
from opstream_schemas.operation.fold import fold_for_reader
from tests.support.access.desk import CallerWithKey, serving_with_keys
from tests.support.api.service import OperationStory, serving, spec, started
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def test_what_was_recorded_before_is_not_lost(broker: Broker, link: Connection, journal: Journal) -> None:
    """It ends as ever, and belongs to those who may read all without a tenant, by its own id; to no other caller."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        for operation_id in ("ended", "open"):
            assert (await api.submit(headers={"Operation-Id": operation_id})).status_code == 202
        before = {one: (await api.status(one)).json() for one in ("ended", "open")}
    async with serving_with_keys(broker, link) as desk:
        ops = await desk.caller("", "ops", "read:all", "cancel")
        admin = await desk.caller("", "root", "admin")
        others = [
            await desk.caller("acme", "root", "admin"),
            await desk.caller("acme", "ops", "read:all"),
            await desk.caller("", "ann", "read", "cancel"),
        ]
        await (await OperationStory.of(journal, "ended")).append(started(), Succeeded(result=msgspec.Raw(b"{}")))
        for caller in (ops, admin):
            # What it waits for is told by another process only after a moment.
            await eventually(lambda caller=caller: _reads(caller, "open", before["open"]))
            assert (await caller.get("/status/ended")).json()["status"] == "Succeeded"
            assert len((await caller.get("/status/ended/events")).json()["value"]) == 3
        for caller in others:
            assert {(await caller.get(f"/status/{one}")).status_code for one in ("open", "ended")} == {404}
        assert (await others[0].cancel("open")).status_code == 404
        assert (await ops.cancel("open")).status_code == 403
        assert (await admin.cancel("open")).json()["status"] == "Canceled"
    async with serving(broker.url) as api:
        assert (await api.status("ended")).json()["status"] == "Succeeded"


async def _reads(caller: CallerWithKey, operation_id: str, monitor: Any) -> bool:
    return bool((await caller.get(f"/status/{operation_id}")).json() == monitor)


async def test_a_snapshot_of_an_earlier_projector_hides_no_owner(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """It has neither tenant nor own id. The owner still reads its operation, and no other caller does."""
    await announce_action(link, spec())
    async with serving_with_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "submit", "read")
        assert (await ann.submit(headers={"Operation-Id": "one"})).status_code == 202
        stored = desk.ids.stored_id("acme", "one")
    operation = fold_for_reader(None, await journal.events(stored))
    assert operation is not None
    earlier = msgspec.structs.replace(operation, tenant="", own_id="")
    assert await view.put(earlier, (await view.get(stored)).revision)
    async with serving_with_keys(broker, link) as desk:
        ann = await desk.caller("acme", "ann", "read")
        ops = await desk.caller("", "ops", "read:all")
        assert (await ops.get(f"/status/{stored}")).status_code == 404
        assert (await ann.get("/status/one")).json()["id"] == "one"
        assert (await ops.get(f"/status/{stored}")).status_code == 404


async def test_authentication_needs_its_bucket_and_nothing_else_does(broker: Broker, link: Connection) -> None:
    """A broker that an earlier version provisioned serves without it; with it, the error says what to run."""
    await announce_action(link, spec())
    await link.nc.jetstream().delete_stream(subjects.bucket_stream(subjects.ACCESS_BUCKET))
    async with serving(broker.url) as api:
        assert (await api.submit()).status_code == 202
    with pytest.raises(NotProvisioned, match="provision --update"):
        async with serving(broker.url, auth=("keys",)):
            pass


async def test_the_secret_is_made_once(broker: Broker, link: Connection) -> None:
    """However many processes start at the same time."""
    buckets = [AccessBucket(link) for _ in range(8)]
    for bucket in buckets:
        await bucket.start()
    found = set(await asyncio.gather(*(bucket.secret() for bucket in buckets)))
    assert len(found) == 1
    assert len(found.pop()) == 32
    for bucket in buckets:
        await bucket.stop()
