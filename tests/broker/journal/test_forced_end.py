"""`opstream fail` on a real broker: what can't be understood ends all the same, and everybody sees the same end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
import pytest
from click.testing import CliRunner, Result

from opstream.cli.app import main
from opstream.cli.commands.fail import SOURCE
from opstream_api.operations.event_feed import EventFeed
from opstream_journal import Connection, ExpectedVersion, Journal, SnapshotStore, VersionConflict, announce_action
from opstream_schemas import subjects
from opstream_schemas.bulk.kinds import BULK_KINDS
from opstream_schemas.errors import FoldRefused, InvalidEvent, OperationFinished
from opstream_schemas.events import Failed, Progressed, decode_event, encode_event
from opstream_schemas.operation.commands import RequestCancel, decide
from opstream_schemas.operation.fold import fold, forced_end_of
from opstream_schemas.operation.state import Operation, Status
from tests.support.api.event_stream import following as follow
from tests.support.api.service import Api, serving, spec
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, following
from tests.support.projector.projection import RESULT, projector, running, settled
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.schemas.histories import FromTheFuture, started
from tests.support.system.invariants import Promise, breaches, gather
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

ID: Final = "op-1"
PROMISE: Final = Promise(str(KIND), {"files": []}, "42")


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be decided is looked at again soon."""
    monkeypatch.setattr("opstream_schemas.operation.dispatch_decision.UNDECIDABLE_RETRY_SECONDS", 0.3)


async def put(link: Connection, payload: bytes, name: str) -> int:
    """Publish to the operation's subjects without an expected version, as a foreign writer; return the sequence."""
    subject = subjects.event_subject(ID, KIND, name)
    return (await link.nc.jetstream().publish(subject, payload)).seq


async def second_request(link: Connection, _: Operation) -> None:
    """The operation's id is requested once more."""
    await put(link, encode_event(first(ID)), "requested")


async def damaged(link: Connection, _: Operation) -> None:
    """Bytes that are no event."""
    await put(link, b"\x00 not an event", "progressed")


async def newer(link: Connection, operation: Operation) -> None:
    """An event of a type that this version does not know."""
    await put(link, encode_event(following(operation, FromTheFuture())), "progressed")


async def forged(link: Connection, operation: Operation) -> None:
    """An outcome with a right chain, under another action and under another event, where a stolen login may write."""
    end = following(operation, RESULT)
    payload = encode_event(end)
    await link.nc.jetstream().publish(subjects.event_subject(ID, BULK_KINDS[0], "succeeded"), payload)
    await put(link, payload, "canceled")


async def everything(link: Connection, operation: Operation) -> None:
    """All of it, and more than once."""
    for one in (newer, second_request, damaged, damaged, forged):
        await one(link, operation)


async def fail(broker: Broker, *options: str, operation_id: str = ID) -> Result:
    """The command."""
    arguments = ["fail", operation_id, "--nats", broker.url, *options]
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def told(api: Api) -> dict[str, Any]:
    """The history as JSON."""
    body: dict[str, Any] = (await api.client.get(f"/status/{ID}/events")).json()
    return body


@pytest.mark.parametrize("ruin", [second_request, damaged, newer, forged, everything])
@pytest.mark.parametrize("is_projected", [True, False])
async def test_everybody_sees_the_same_end(
    broker: Broker,
    link: Connection,
    journal: Journal,
    view: SnapshotStore,
    stage: RunnerStage,
    api: Api,
    ruin: Any,
    is_projected: bool,
) -> None:
    """Status, history, stream, runner, view and invariants agree on an operation that was ended by force, whether it
    was in the view before or not."""
    begun = msgspec.structs.replace(started(), runner="test")  # as events here have it in their source
    operation = await extend(journal, await begin(journal, ID), begun, Progressed(percent=20.0))
    if is_projected:
        async with running(projector(link, journal)):
            await settled(link)
    await ruin(link, operation)
    last = await journal.last_message(ID)
    assert last is not None

    refused = await fail(broker)
    assert (refused.exit_code, "--force" in refused.output) == (1, True)
    done = await fail(broker, "--force", "--reason", "a script wrote there")
    assert (done.exit_code, f"{ID}: Running before, Failed now" in done.output) == (0, True), done.output

    status = (await api.status(ID)).json()
    assert (status["status"], status["error"]["code"]) == ("Failed", "FailedByOperator")
    assert "a script wrote there" in status["error"]["message"]
    events = await journal.events(ID)
    end = events[-1]
    forced = forced_end_of(end)
    assert forced is not None
    assert (end.source, forced.reason, forced.sequence) == (SOURCE, "a script wrote there", last.seq)
    ended = fold(None, events)
    assert ended is not None
    assert (ended.status, ended.attempt, ended.percent_complete) == (Status.FAILED, 1, 20.0)

    history = await told(api)
    assert [event["id"] for event in history["value"]] == [event.id for event in events]
    async with follow(api.client, ID) as stream:
        shown = [one async for one in stream]
    assert [one.data for one in shown] == [event.stored for event in events]
    assert [one.id for one in shown] == sorted({one.id for one in shown})
    assert shown[-1].id == ended.position
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(shown[-1].id)}
    assert (await api.client.get(f"/status/{ID}/events", headers=headers)).status_code == 204

    async with stage.runner([gated(HandlerGate(), lease=1)]), running(projector(link, journal)):
        await stage.settled()
        evidence = await gather(broker.url)
    evidence.promised[ID] = PROMISE
    assert breaches(evidence) == []
    stored = (await view.get_newest(ID)).operation
    assert stored == ended


async def test_nothing_follows(broker: Broker, link: Connection, journal: Journal, api: Api) -> None:
    """An operation that was ended by force is terminal for clients, operators and runners."""
    operation = await extend(journal, await begin(journal, ID), started())
    await everything(link, operation)
    assert (await fail(broker, "--force")).exit_code == 0
    stored = await journal.events(ID)

    answer = await api.cancel(ID)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "OperationFinished")
    for options in ([], ["--force"]):
        again = await fail(broker, *options)
        assert (again.exit_code, "Failed" in again.output) == (1, True)
    with pytest.raises(VersionConflict):
        await extend(journal, operation, RESULT)
    with pytest.raises(OperationFinished):
        decide(fold(None, stored), RequestCancel())
    assert await journal.events(ID) == stored


async def test_an_attempt_that_runs_is_stopped(broker: Broker, link: Connection, stage: RunnerStage) -> None:
    """A runner at work is fenced off by the end, whether it could understand what came before it or not."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=1)]):
        await stage.request(ID)
        await gate.entered(1)
        assert (await fail(broker, "--reason", "it hangs")).exit_code == 0
        await eventually(lambda: gate.cancelled == [1])
        await stage.settled()
    assert await stage.names(ID) == ["requested", "started", "failed"]
    assert (await stage.events(ID))[-1].source == SOURCE


async def test_nothing_can_be_read(
    broker: Broker,
    link: Connection,
    journal: Journal,
    view: SnapshotStore,
    stage: RunnerStage,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where not even the request can be read there is no status, and its message does not come back for ever."""
    monkeypatch.setattr("opstream_projector.projection.projector._DOUBT_DELIVERIES", 1)
    await put(link, b"rubbish", "requested")
    assert (await api.status(ID)).status_code == 500
    async with stage.runner([gated(HandlerGate(), lease=1)]), running(projector(link, journal)):
        await eventually(lambda: _is_redelivered(stage))
        done = await fail(broker, "--force")
        assert (done.exit_code, "not even its request can be read" in done.output) == (0, True), done.output
        await stage.settled()
        assert breaches(await gather(broker.url)) == []
    assert (await api.status(ID)).status_code == 404
    assert (await fail(broker, "--force")).exit_code == 1
    assert (await view.get_newest(ID)).operation is None


async def _is_redelivered(stage: RunnerStage) -> bool:
    return (await stage.consumer()).num_redelivered == 1


async def test_a_plain_end(broker: Broker, journal: Journal, api: Api) -> None:
    """An operation that can be understood ends as any other does; --force adds nothing to it."""
    for operation_id, options in (("op-1", ()), ("op-2", ("--force",))):
        await begin(journal, operation_id)
        done = await fail(broker, *options, operation_id=operation_id)
        assert (done.exit_code, done.output.splitlines()) == (
            0,
            [f"{operation_id}: NotStarted before, Failed now (position 2 of its events)"],
        )
        (_, end) = await journal.events(operation_id)
        assert isinstance(end.data, Failed)
        assert (end.source, end.data.forced, end.data.error.code) == (SOURCE, None, "FailedByOperator")
        assert (await api.status(operation_id)).json()["status"] == "Failed"


@pytest.mark.parametrize(
    ("operation_id", "status", "text"),
    [("nobody", 1, "there is no operation nobody"), ("a b", 2, "operation id 'a b'")],
)
async def test_no_such_operation(broker: Broker, link: Connection, operation_id: str, status: int, text: str) -> None:
    """An unknown id is reported, and so is an invalid one."""
    done = await fail(broker, "--force", operation_id=operation_id)
    assert (done.exit_code, text in done.output) == (status, True), done.output


async def test_what_succeeded_stays(broker: Broker, link: Connection, journal: Journal) -> None:
    """What has ended is not ended again, not even by force and with rubbish behind its end."""
    operation = await extend(journal, await begin(journal, ID), started(), RESULT)
    await damaged(link, operation)
    for options in ((), ("--force",)):
        done = await fail(broker, *options)
        assert (done.exit_code, "is Succeeded" in done.output) == (1, True), done.output


async def test_an_end_that_follows_something_else(link: Connection, journal: Journal) -> None:
    """A forced end that was not made for what lies before it is foreign, too."""
    operation = await extend(journal, await begin(journal, ID), started())
    await damaged(link, operation)
    end = {
        "specversion": "1.0",
        "id": "forged",
        "source": "test",
        "type": Failed.type,
        "subject": ID,
        "time": "2026-03-14T00:00:00Z",
        "datacontenttype": "application/json",
        "position": 4,
        "previoushash": "0" * 64,
        "data": {
            "error": {"code": 1, "message": "x"},
            "forced": {"sequence": operation.stream_sequence + 1, "passedOver": 1},
        },
    }
    await put(link, msgspec.json.encode(end), "failed")
    with pytest.raises(InvalidEvent):
        await journal.events(ID)
    await put(link, msgspec.json.encode(end | {"previoushash": operation.last_hash}), "failed")
    with pytest.raises((InvalidEvent, FoldRefused)):
        fold(None, await journal.events(ID))


@pytest.mark.parametrize("count", [40, 90])
async def test_a_long_history_with_damage(
    broker: Broker, link: Connection, journal: Journal, api: Api, count: int
) -> None:
    """A long history that was ended by force is read whole, in pages too, from any position."""
    operation = await extend(journal, await begin(journal, ID), started())
    for number in range(count):
        operation = await extend(journal, operation, Progressed(percent=float(number), message="x" * 500))
    await everything(link, operation)
    assert (await fail(broker, "--force")).exit_code == 0
    events = await journal.events(ID)
    stored = [event.stored for event in events]

    answer = await api.client.get(f"/status/{ID}/events")
    assert answer.content == b'{"value":[' + b",".join(stored) + b"]}"
    feed = EventFeed(journal, ID, max_bytes=5_000)
    for begin_at in (0, count, count + 3):
        position, frames = begin_at, []
        while not frames or position < operation_position(stored):
            _, found = await feed.events_after(position, at_least=0)
            frames += found
            position = found[-1].position
        assert len(frames) == len(events) - begin_at


def operation_position(stored: list[bytes]) -> int:
    """Of the last event."""
    return decode_event(stored[-1], 1).position


async def test_racing_writers(
    broker: Broker, link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored between the operator's look and the end is looked at again, and counted."""
    operation = await extend(journal, await begin(journal, ID), started())
    await damaged(link, operation)
    append: Callable[..., Any] = Journal.append
    tries = 0

    async def late(self: Journal, kind: Any, event: Any, expected: ExpectedVersion, *, budget: float) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            await damaged(self._connection, operation)
        return await append(self, kind, event, expected, budget=budget)

    monkeypatch.setattr(Journal, "append", late)
    assert (await fail(broker, "--force")).exit_code == 0
    ended = fold(None, await journal.events(ID))
    assert ended is not None
    assert (tries, ended.status, ended.skipped, ended.position) == (2, Status.FAILED, 2, 5)
