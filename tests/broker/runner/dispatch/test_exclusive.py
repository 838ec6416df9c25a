"""Exclusive actions on two runners and one broker: one at a time, in order, and none forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_runner import ActionContext, RetryAfter, action
from opstream_runner.dispatch.admission import AdmissionControl
from opstream_runner.dispatch.dispatcher import Dispatcher
from opstream_schemas import subjects
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Canceled, CancelRequested, Requested
from opstream_schemas.operation.resource_lock import Claim, LockOwned
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, folded, linked, opened
from tests.support.runner.exclusive_actions import Log, ask, exclusive, queue_of, releasing
from tests.support.runner.stage import HandlerGate, Input, RunnerStage
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

THIRTY = [f"op-{number:02}" for number in range(30)]


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def has_no_more_than_the_owner(stage: RunnerStage) -> bool:
    """Return True if every other message is acknowledged: a waiting operation keeps none."""
    info = await stage.consumer()
    return (info.num_pending, info.num_ack_pending) == (0, 1)


async def all_ended(stage: RunnerStage, *ids: str) -> list[Operation]:
    """The operations, once all have ended."""
    return [await stage.ended(one, within=30) for one in ids]


async def test_thirty_run_one_at_a_time_in_the_order_of_their_requests(stage: RunnerStage) -> None:
    """With two runners of four slots each, one operation that owns the lock meanwhile, and no projector."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate)
    queue = await queue_of(stage, offered)
    async with stage.runner([offered]), stage.runner([offered]):
        await ask(stage, offered, "first")
        await gate.entered(1)
        await ask(stage, offered, *THIRTY)
        await queue.has(*THIRTY)
        await eventually(lambda: has_no_more_than_the_owner(stage))
        gate.open()
        ended = await all_ended(stage, "first", *THIRTY)

    assert log.overlaps == []
    assert log.begun == ["first", *THIRTY]
    assert {(one.status, one.attempt) for one in ended} == {(Status.SUCCEEDED, 1)}


async def test_a_burst_never_overlaps(stage: RunnerStage) -> None:
    """All at once on a free resource, with no handler that waits."""
    log = Log()
    offered = exclusive(log)
    await ask(stage, offered, *THIRTY)
    async with stage.runner([offered]), stage.runner([offered]):
        await all_ended(stage, *THIRTY)

    assert log.overlaps == []
    assert sorted(log.begun) == THIRTY


async def test_resources_do_not_wait_for_each_other(stage: RunnerStage) -> None:
    """Two resources run at once; the resource without an id is one of its own."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate)
    async with stage.runner([offered]):
        await ask(stage, offered, "op-1", resource_id="1")
        await ask(stage, offered, "op-2", resource_id="2")
        await ask(stage, offered, "op-3", resource_id="")
        await gate.entered(3)
        gate.open()
        await all_ended(stage, "op-1", "op-2", "op-3")


async def test_a_waiting_operation_takes_no_slot(stage: RunnerStage) -> None:
    """With two slots and five that wait for one resource, another resource's operation runs."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate)
    async with stage.runner([offered], concurrency=2):
        await ask(stage, offered, *THIRTY[:6])
        await ask(stage, offered, "other", resource_id="43")
        await gate.entered(2)
        assert {one for one, _ in gate.attempts} == {THIRTY[0], "other"}
        gate.open()
        await all_ended(stage, *THIRTY[:6], "other")


async def test_a_group_of_two_actions_is_one_queue(stage: RunnerStage) -> None:
    """Actions of a group exclude each other on the same resource, whichever runner has them."""
    log, gate = Log(), HandlerGate()
    upload = exclusive(log, gate=gate, exclusive_group="files")
    remove = exclusive(log, gate=gate, name="book:remove", exclusive_group="files")
    queue = await queue_of(stage, upload)
    async with stage.runner([upload]), stage.runner([remove]):
        await ask(stage, upload, "op-1")
        await gate.entered(1)
        for number in range(2, 8):
            await ask(stage, (upload, remove)[number % 2], f"op-{number}")
        names = [f"op-{number}" for number in range(2, 8)]
        await queue.has(*names)
        gate.open()
        await all_ended(stage, *names)

    assert log.overlaps == []
    assert log.begun == ["op-1", *names]


async def test_the_loser_of_a_race_is_refused(stage: RunnerStage) -> None:
    """Past the API's check, `reject` fails the operation with the code that the API would have answered."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate, on_conflict="reject")
    await ask(stage, offered, "op-1", "op-2")
    async with stage.runner([offered]), stage.runner([offered]):
        await gate.entered(1)
        (winner,) = log.begun
        failed = await stage.ended("op-2" if winner == "op-1" else "op-1")
        gate.open()
        succeeded = await stage.ended(winner)

    assert succeeded.status is Status.SUCCEEDED
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.target) == (ErrorCode.RESOURCE_BUSY, "42")
    assert f"operation {winner} holds book 42" in failed.error.message
    assert log.begun == [winner]


@pytest.mark.parametrize("on_conflict", ["reject", "replace"])
async def test_callers_that_are_told_apart_see_no_id_of_another(stage: RunnerStage, on_conflict: str) -> None:
    """Neither the error nor the reason names the other operation, whose id only its own caller may know."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate, on_conflict=on_conflict)
    lock = subjects.lock_key(offered.spec.lock_scope, "42", "acme")
    async with stage.runner([offered]) as runner:
        for number in (1, 2):
            await stage.request(
                f"stored-{number}", resource_id="42", hold=lock, tenant="acme", own_id=f"own-{number}", caller="ann"
            )
            if number == 1:
                await gate.entered(1)
        if on_conflict == "replace":
            await stage.reached("stored-1", lambda found: found.cancel is not None)
            runner.notify(offered.kind, "stored-1")
            lost = await stage.ended("stored-1")
        else:
            lost = await stage.ended("stored-2")
        gate.open()
        await all_ended(stage, "stored-1", "stored-2")

    told = lost.reason if lost.error is None else lost.error.message
    assert told in {"replaced by a later operation", "another operation holds book 42: wait for its end, or cancel it"}
    datas = [data for one in ("stored-1", "stored-2") for data in await stage.datas(one)]
    said = b"".join(msgspec.json.encode(data) for data in datas if not isinstance(data, Requested))
    assert not [hidden for hidden in ("stored-1", "stored-2", "own-1", "own-2") if hidden.encode() in said]


async def test_replace_cancels_the_owner_first(stage: RunnerStage) -> None:
    """The owner is asked to stop, the waiters are canceled, and the last one runs once the owner has stopped."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate, on_conflict="replace")
    async with stage.runner([offered]) as one, stage.runner([offered]) as two:
        await ask(stage, offered, "op-1")
        await gate.entered(1)
        await ask(stage, offered, "op-2", "op-3")
        await stage.reached("op-1", lambda found: found.cancel is not None)
        for runner in (one, two):
            runner.notify(offered.kind, "op-1")
        await gate.entered(2)
        gate.open()
        ended = await all_ended(stage, "op-1", "op-2", "op-3")

    assert [found.status for found in ended] == [Status.CANCELED, Status.CANCELED, Status.SUCCEEDED]
    assert log.begun == ["op-1", "op-3"]
    assert log.overlaps == []
    requests = [data for data in await stage.datas("op-1") if isinstance(data, CancelRequested)]
    assert len(requests) == 1
    assert requests[0].reason in {"replaced by operation op-2", "replaced by operation op-3"}
    assert ended[1].reason == "replaced by operation op-3"


async def test_a_canceled_waiter_does_not_run(stage: RunnerStage, link: Connection, journal: Journal) -> None:
    """It leaves the queue at once, and the next one gets its position."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate)
    queue = await queue_of(stage, offered)
    async with stage.runner([offered]), releasing(link, journal):
        await ask(stage, offered, "op-1")
        await gate.entered(1)
        await ask(stage, offered, "op-2", "op-3")
        await queue.has("op-2", "op-3")
        await stage.append("op-2", Canceled(reason="never mind"))
        await queue.has("op-3")
        gate.open()
        await all_ended(stage, "op-1", "op-3")

    assert log.begun == ["op-1", "op-3"]


async def test_an_owner_that_ends_before_its_start_hands_the_lock_on(
    stage: RunnerStage, link: Connection, journal: Journal
) -> None:
    """A waiter gets the lock while no runner has a slot, and is then canceled or too late: the projector hands it
    on."""
    log, gate = Log(), HandlerGate()
    upload = exclusive(log, gate=gate, exclusive_group="files")
    absent = exclusive(log, name="book:remove", exclusive_group="files")
    queue = await queue_of(stage, upload)
    async with stage.runner([upload]), releasing(link, journal):
        await ask(stage, upload, "op-1")
        await gate.entered(1)
        async with stage.runner([absent]):
            await ask(stage, absent, "op-2")
            await queue.has("op-2")
        await ask(stage, upload, "op-3")
        await queue.has("op-2", "op-3")
        gate.open()
        await eventually(lambda: queue.is_held_by("op-2"))
        await stage.append("op-2", Canceled(reason="never mind"))
        await all_ended(stage, "op-3")

    assert log.begun == ["op-1", "op-3"]


@pytest.mark.parametrize("moment", ["taken", "queued", "handed over", "ended"])
async def test_a_crash_at_any_moment_blocks_no_operation(
    stage: RunnerStage, link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Between two steps that belong together an attempt crashes; others go on, or its lease runs out."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate, lease=1)
    queue = await queue_of(stage, offered)
    owner, name = {
        "taken": (Dispatcher, "_start_attempt"),  # owns the lock, and has not begun
        "queued": (ResourceLocks, "enqueue"),  # waits, and its message is not acknowledged
        "handed over": (ResourceLocks, "wake"),  # owns the lock, and was not woken
        "ended": (AdmissionControl, "try_release_lock"),  # has ended, and still owns the lock
    }[moment]
    crash = Crash(getattr(owner, name), is_late=moment == "queued")
    monkeypatch.setattr(owner, name, crash.method())
    names = ["op-1", "op-2", "op-3"]
    async with stage.runner([offered]), stage.runner([offered]), releasing(link, journal):
        await ask(stage, offered, *names)
        await gate.entered(1)
        begun = log.begun[0]
        await queue.has(*(one for one in names if one != begun))
        gate.open()
        await all_ended(stage, *names)

    assert crash.has_happened
    assert log.overlaps == []
    assert sorted(log.begun) == names
    assert log.begun[1:] == sorted(log.begun[1:])


class Crash:
    """Makes a method fail once, before or after its effect."""

    def __init__(self, original: Callable[..., Awaitable[Any]], *, is_late: bool) -> None:
        self._original = original
        self._is_late = is_late
        self.has_happened = False

    def method(self) -> Callable[..., Awaitable[Any]]:
        """The method that replaces the original."""

        async def failing(*args: Any, **named: Any) -> Any:
            if self.has_happened:
                return await self._original(*args, **named)
            self.has_happened = True
            if self._is_late:
                await self._original(*args, **named)
            raise RuntimeError("the process ends here")

        return failing


async def test_an_owner_that_lost_its_runner_keeps_its_lock(stage: RunnerStage, broker: Broker) -> None:
    """Its lease runs out, its next attempt runs, and only then the waiters follow."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate, lease=1)
    queue = await queue_of(stage, offered)
    async with linked(broker.url) as cut:
        dependencies = stage.dependencies(journal=await opened(cut))
        async with stage.runner([offered], link=cut, dependencies=dependencies):
            await ask(stage, offered, "op-1")
            await gate.entered(1)
            async with stage.runner([offered]):
                await ask(stage, offered, "op-2")
                await queue.has("op-2")
                await cut.close()
                await gate.entered(2)
                assert gate.attempts == [("op-1", 1), ("op-1", 2)]
                assert await queue.waiting() == ["op-2"]
                gate.open()
                first, second = await all_ended(stage, "op-1", "op-2")

    assert (first.status, first.attempt) == (Status.SUCCEEDED, 2)
    assert (second.status, second.attempt) == (Status.SUCCEEDED, 1)
    assert all(set(overlap) == {"op-1"} for overlap in log.overlaps)


async def test_a_lock_that_was_removed_from_the_bucket_is_waited_for(
    stage: RunnerStage, link: Connection, journal: Journal
) -> None:
    """An attempt died, and its lock was given to another operation: its message is kept until the lock is back."""
    log = Log()
    offered = exclusive(log, lease=1, exclusive_group="files")
    absent = exclusive(log, name="book:remove", exclusive_group="files")
    holds = ResourceLocks(link, journal)
    await holds.start()
    (first,) = await ask(stage, offered, "op-1")
    (second,) = await ask(stage, absent, "op-2")
    await stage.append("op-1", started(ticket=first.sequence))
    thief = Claim(operation_id="op-2", sequence=second.sequence, kind=str(absent.kind))
    hold = (await stage.state("op-2")).hold
    assert isinstance(await holds.acquire(hold, thief), LockOwned)
    await stage.append("op-2", started(ticket=second.sequence))
    queue = await queue_of(stage, offered)
    async with stage.runner([offered]):
        await queue.has("op-1")
        assert log.begun == []
        ended = folded(await stage.state("op-2"), await stage.append("op-2", Canceled()))
        await holds.release(ended)
        operation = await stage.ended("op-1")

    assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 2)
    assert log.begun == ["op-1"]


async def test_a_retry_keeps_the_lock(stage: RunnerStage) -> None:
    """Between a failed attempt and the next one no other operation gets the lock."""
    log, tries = Log(), []

    @action(str(KIND), exclusive="resource", backoff=0.2)
    async def handler(request: Input, ctx: ActionContext) -> int:
        with log.entry(ctx.operation_id):
            tries.append((ctx.operation_id, ctx.attempt))
            if ctx.attempt == 1:
                raise RetryAfter(0.3, "not yet")
        return ctx.attempt

    async with stage.runner([handler]), stage.runner([handler]):
        await ask(stage, handler, "op-1")
        await eventually(lambda: tries)
        await ask(stage, handler, "op-2")
        await all_ended(stage, "op-1", "op-2")

    assert tries == [("op-1", 1), ("op-1", 2), ("op-2", 1), ("op-2", 2)]


async def test_a_waiter_gets_the_lock_without_a_projector(stage: RunnerStage) -> None:
    """No projector runs here: the runner that records an outcome wakes the next waiter itself."""
    log, gate = Log(), HandlerGate()
    offered = exclusive(log, gate=gate)
    queue = await queue_of(stage, offered)
    async with stage.runner([offered]):
        await ask(stage, offered, *THIRTY)
        await queue.has(*THIRTY[1:])
        gate.open()
        await all_ended(stage, *THIRTY)

    assert log.begun == THIRTY


async def test_a_missing_bucket(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """Without the bucket of locks there is one line for all messages, without a traceback, that names the next step."""
    offered = exclusive(Log())
    caplog.set_level("DEBUG", logger="opstream_runner")
    async with stage.runner([offered]):
        await stage.link.nc.jetstream().delete_stream("KV_holds")
        await ask(stage, offered, "op-1", "op-2")
        await eventually(lambda: sum("is missing: run 'opstream provision'" in line for line in caplog.messages) >= 2)
        lines = [one for one in caplog.records if "is missing: run 'opstream provision'" in one.getMessage()]
        assert [one.levelname for one in lines][:2] == ["WARNING", "DEBUG"]
        assert not [one for one in caplog.records if one.exc_info]
        assert "stream not found" in lines[0].getMessage()
