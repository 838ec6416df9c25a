"""The action catalog: announced once, never lowered, known everywhere within a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from opstream_journal import ActionCatalog, Connection, EventTooLarge, JournalUnavailable, announce_action, find_action
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec, Policy
from opstream_schemas.names import Kind
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

KIND = Kind("book", "upload-start")


def spec(version: int = 1, **changes: Any) -> ActionSpec:
    fields: dict[str, Any] = {
        "resource": KIND.resource,
        "action": KIND.action,
        "summary": "uploads a book",
        "action_version": version,
        "input_schema": {"type": "object", "additionalProperties": False},
        "result_schema": {"type": "object"},
        "policy": Policy(lease=2.5),
    }
    return ActionSpec(**(fields | changes))


async def store(link: Connection, key: str, value: bytes) -> None:
    await link.nc.jetstream().publish(subjects.bucket_subject(subjects.ACTIONS_BUCKET, key), value)


async def revision(link: Connection) -> int:
    """How often the catalog was written."""
    return (await link.nc.jetstream().stream_info(subjects.bucket_stream(subjects.ACTIONS_BUCKET))).state.last_seq


@pytest.fixture
async def catalog(link: Connection) -> AsyncIterator[ActionCatalog]:
    catalog = ActionCatalog(link)
    await catalog.start()
    yield catalog
    await catalog.stop()


async def test_announced_is_found(link: Connection) -> None:
    """What was announced is looked up unchanged; announcing it again writes nothing."""
    assert await find_action(link, KIND) is None
    assert await announce_action(link, spec())
    assert await find_action(link, KIND) == spec()
    assert await announce_action(link, spec())
    assert await revision(link) == 1


async def test_a_lower_version_replaces_nothing(link: Connection) -> None:
    """An announcement of a lower version returns False."""
    assert await announce_action(link, spec(3))
    assert not await announce_action(link, spec(2))
    assert await find_action(link, KIND) == spec(3)
    assert await announce_action(link, spec(4))
    assert await find_action(link, KIND) == spec(4)


async def test_racing_announcements(broker: Broker, link: Connection) -> None:
    """Of many runners that start at once with different versions, the highest one stays."""
    async with linked(broker.url) as other:
        answers = await asyncio.gather(*(announce_action((link, other)[n % 2], spec(n // 2)) for n in range(16)))
    assert answers[-2:] == [True, True]
    assert await find_action(link, KIND) == spec(7)


async def test_too_large_an_entry(link: Connection) -> None:
    """An entry beyond what the broker takes is refused here, and costs no connection."""
    with pytest.raises(EventTooLarge):
        await announce_action(link, spec(summary="x" * link.nc.max_payload))
    assert await announce_action(link, spec())


async def test_watching(catalog: ActionCatalog, link: Connection) -> None:
    """An announcement is known within a second, and listeners are called."""
    told: list[int] = []
    catalog.on_change(lambda: told.append(catalog.specs[KIND].action_version))
    assert dict(catalog.specs) == {}
    await announce_action(link, spec(1))
    await eventually(lambda: told == [1], within=1)
    await announce_action(link, spec(2))
    await eventually(lambda: told == [1, 2], within=1)
    assert dict(catalog.specs) == {KIND: spec(2)}


async def test_what_was_there_before(link: Connection) -> None:
    """A catalog that starts later knows everything from its first moment."""
    for number in range(20):
        await announce_action(link, spec(action=f"a-{number}"))
    catalog = ActionCatalog(link)
    await catalog.start()
    assert len(catalog.specs) == 20
    await catalog.stop()


async def test_still_watching_after_a_restart(broker: Broker, catalog: ActionCatalog, link: Connection) -> None:
    """A broker that was killed and started again is watched as before, and what was known stays known meanwhile."""
    await announce_action(link, spec(1))
    await eventually(lambda: KIND in catalog.specs, within=1)
    broker.kill()
    await eventually(lambda: not link.is_connected)
    assert await catalog.find(KIND) == spec(1)
    with pytest.raises(JournalUnavailable):
        await catalog.find(Kind("car", "wash"))
    await asyncio.to_thread(broker.start)
    await eventually(lambda: link.is_connected)
    async with linked(broker.url) as runner:
        await announce_action(runner, spec(2))
        await eventually(lambda: catalog.specs[KIND] == spec(2), within=1)


async def test_changed_while_disconnected(broker: Broker, catalog: ActionCatalog, link: Connection) -> None:
    """What was announced while the catalog had no connection is known soon after it has one again."""
    await announce_action(link, spec(1))
    await eventually(lambda: KIND in catalog.specs, within=1)
    await link.nc.force_reconnect()
    async with linked(broker.url) as runner:
        await announce_action(runner, spec(2))
    await eventually(lambda: catalog.specs[KIND] == spec(2), within=2)


async def test_finding_looks_directly(link: Connection) -> None:
    """An action without a notification is found at the broker."""
    catalog = ActionCatalog(link)
    assert await catalog.find(KIND) is None
    await announce_action(link, spec())
    assert await catalog.find(KIND) == spec()
    assert dict(catalog.specs) == {KIND: spec()}


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b'{"resource":"book"}',
        b"[" * 100_000,
        msgspec.json.encode(spec(action="another")),
        msgspec.json.encode(spec(resource="b.ook")),
        b'{"inputSchema":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    ],
    ids=["empty", "no-utf8", "empty-object", "part", "deep", "another", "no-name", "nested"],
)
async def test_garbage(catalog: ActionCatalog, link: Connection, garbage: bytes) -> None:
    """An entry that describes no action, or another one, is ignored, and the next announcement replaces it."""
    await store(link, subjects.action_key(KIND), garbage)
    await announce_action(link, spec(action="other"))
    await eventually(lambda: Kind("book", "other") in catalog.specs, within=1)
    assert (await find_action(link, KIND), await catalog.find(KIND)) == (None, None)
    assert await announce_action(link, spec())
    await eventually(lambda: catalog.specs.get(KIND) == spec(), within=1)


async def test_reserved_since(catalog: ActionCatalog, link: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """An action that an earlier version announced under a resource that is reserved by now is skipped with a warning;
    all other actions stay known."""
    kind = Kind("runners", "drain")
    await store(link, subjects.action_key(kind), msgspec.json.encode(spec(resource="runners", action="drain")))
    await announce_action(link, spec())
    await eventually(lambda: dict(catalog.specs) == {KIND: spec()}, within=1)
    assert (await find_action(link, kind), await catalog.find(kind)) == (None, None)
    assert "resource name 'runners' is reserved" in caplog.text


async def test_listeners_that_fail(catalog: ActionCatalog, link: Connection) -> None:
    """A listener that raises neither ends the watching nor keeps other listeners from being called."""
    told: list[int] = []

    def fail() -> None:
        raise RuntimeError("not my day")

    catalog.on_change(fail)
    catalog.on_change(lambda: told.append(len(catalog.specs)))
    await announce_action(link, spec())
    await eventually(lambda: told == [1], within=1)
    await announce_action(link, spec(action="other"))
    await eventually(lambda: told == [1, 2], within=1)


async def test_a_replica_that_is_behind(
    catalog: ActionCatalog, link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older entry of the same version, from a replica that is behind, brings nothing back."""
    await announce_action(link, spec(summary="old"))
    stale = await _entries(link)
    await announce_action(link, spec(summary="new"))
    await eventually(lambda: catalog.specs.get(KIND) == spec(summary="new"), within=1)
    monkeypatch.setattr(catalog._reader, "read", lambda *_args, **_options: _at_once(stale))
    await catalog.refresh()
    assert catalog.specs[KIND] == spec(summary="new")


async def _entries(link: Connection) -> list[rpc.StoredMessage]:
    stream = subjects.bucket_stream(subjects.ACTIONS_BUCKET)
    stored = await rpc.get_last(link, stream, subjects.bucket_subject(subjects.ACTIONS_BUCKET, ">"))
    assert stored is not None
    return [stored]


async def _at_once(entries: list[rpc.StoredMessage]) -> list[rpc.StoredMessage]:
    return entries


async def test_stopping_leaves_nothing(link: Connection) -> None:
    """A catalog that stopped has no task and no subscription left."""
    tasks, subscriptions = asyncio.all_tasks(), len(link.nc._subs)
    for _ in range(5):
        catalog = ActionCatalog(link)
        await catalog.start()
        await catalog.stop()
    await link.nc.flush()
    assert (asyncio.all_tasks(), len(link.nc._subs)) == (tasks, subscriptions)
