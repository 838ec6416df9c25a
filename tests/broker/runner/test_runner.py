"""The runner on a real broker: the events of operations that succeed, or that fail by themselves."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import msgspec
import pytest

from opstream_journal import Connection, ExpectedVersion, Journal
from opstream_journal.provisioning.topology import Sizing
from opstream_runner import ActionContext, ActionError, action
from opstream_runner.attempt.attempt import Attempt
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Event, OperationError, Progressed, RecordedEvent, Started, Succeeded
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, linked, opened
from tests.support.runner.stage import ACKS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


class Strict(msgspec.Struct):
    """An input with a required member."""

    needed: int


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def test_an_operation_that_goes_well(stage: RunnerStage) -> None:
    """An action that returns leaves requested, started and succeeded, and no message on the broker."""
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate, lease=7)]):
        (requested,) = await stage.request("op-1", resource_id="42")
        await stage.ended("op-1")
        await stage.settled()
    _, started, succeeded = await stage.datas("op-1")
    assert isinstance(started, Started)
    assert (started.attempt, started.ticket, started.lease, started.runner) == (1, requested.sequence, 7.0, "runner-1")
    assert len(started.token) > 16
    assert succeeded == Succeeded(result=msgspec.Raw(b"1"))
    (context,) = gate.contexts
    assert (context.operation_id, context.resource_id, context.attempt) == ("op-1", "42", 1)


def attempts_in_memory() -> set[Attempt]:
    """All attempts that are not freed."""
    return {one for one in gc.get_objects() if type(one) is Attempt}


async def test_an_ended_attempt_is_freed(stage: RunnerStage) -> None:
    """An ended attempt is freed without the garbage collector."""
    gate = HandlerGate()
    gate.open()
    gc.collect()
    earlier = attempts_in_memory()  # threads that tests before this one left behind may still refer to theirs
    gc.disable()
    try:
        async with stage.runner([gated(gate)]):
            await stage.request("op-1")
            await stage.ended("op-1")
            gate.contexts.clear()
            await eventually(lambda: attempts_in_memory() <= earlier)
    finally:
        gc.enable()


async def test_every_attempt_has_a_token_of_its_own(stage: RunnerStage) -> None:
    """No two operations share a token."""
    gate = HandlerGate()
    gate.open()
    ids = [f"op-{number}" for number in range(10)]
    async with stage.runner([gated(gate)]):
        await stage.request(*ids)
        for one in ids:
            await stage.ended(one)
    tokens = {data.token for one in ids for data in await stage.datas(one) if isinstance(data, Started)}
    assert len(tokens) == 10


async def test_the_message_is_acknowledged_after_the_outcome(stage: RunnerStage) -> None:
    """While the action runs, its message is not acknowledged; one confirmed ack follows the outcome."""
    gate = HandlerGate()
    spy = await stage.spy(ACKS)
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        assert (await stage.consumer()).num_ack_pending == 1
        gate.open()
        await stage.ended("op-1")
        await stage.settled()
    assert [data for _, data in spy.seen] == [b"+ACK"]


async def test_progress(stage: RunnerStage) -> None:
    """The progress of an async handler is recorded before its outcome."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> None:
        await ctx.progress(40, "halfway")

    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
    told = (await stage.datas("op-1"))[2:]
    assert told == [
        Progressed(percent=40.0, message="halfway"),
        Succeeded(result=msgspec.Raw(b"null")),
    ]


async def test_progress_that_is_not_awaited(stage: RunnerStage) -> None:
    """Progress that a handler does not await is recorded all the same, in order."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> None:
        for percent in (10, 20, 30):
            ctx.progress(percent)
        await asyncio.sleep(0)

    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
    told = [data.percent for data in await stage.datas("op-1") if isinstance(data, Progressed)]
    assert told == [10.0, 20.0, 30.0]


@pytest.mark.parametrize("is_plain", [False, True])
async def test_progress_of_any_text(stage: RunnerStage, is_plain: bool) -> None:
    """Lone surrogates are replaced, a huge text is cut: neither loses the report, nor the attempt."""
    texts = ["a\ud800b", "x" * 5_000_000, "é" * 4096]

    @action(str(KIND))
    async def asynchronous(request: Input, ctx: ActionContext) -> None:
        for percent, text in enumerate(texts):
            await ctx.progress(percent * 10, text)

    @action(str(KIND))
    def plain(request: Input, ctx: ActionContext) -> None:
        for percent, text in enumerate(texts):
            ctx.progress(percent * 10, text)

    async with stage.runner([plain if is_plain else asynchronous]):
        await stage.request("op-1")
        assert (await stage.ended("op-1")).status is Status.SUCCEEDED
    told = [data.message for data in await stage.datas("op-1") if isinstance(data, Progressed)]
    assert told == ["a?b", "x" * 4093 + "…", "é" * 2046 + "…"]


async def test_a_plain_handler_and_its_progress(stage: RunnerStage) -> None:
    """A plain handler runs in a thread, may report progress from there, and its result is recorded."""

    @action(str(KIND))
    def handler(request: Input, ctx: ActionContext) -> bool:
        ctx.progress(50, "from a thread")
        return threading.current_thread() is threading.main_thread()

    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
    told = (await stage.datas("op-1"))[2:]
    assert told == [
        Progressed(percent=50.0, message="from a thread"),
        Succeeded(result=msgspec.Raw(b"false")),
    ]


async def test_progress_is_throttled(stage: RunnerStage) -> None:
    """A handler that reports each thousandth leaves at most one event a percent."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> None:
        for thousandth in range(101):
            await ctx.progress(thousandth / 10)

    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
    told = [data.percent for data in await stage.datas("op-1") if isinstance(data, Progressed)]
    assert told == [float(percent) for percent in range(11)]


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (ActionError(404, "gone", target="id"), OperationError(code=404, message="gone", target="id")),
        (ActionError("Bad\ud800", "\ud800"), OperationError(code="Bad?", message="?")),
        (SystemExit(3), None),
        (ValueError("secret"), None),
    ],
)
async def test_an_action_that_fails(stage: RunnerStage, error: BaseException, recorded: OperationError | None) -> None:
    """An ActionError is recorded as raised; any other exception of the last attempt is recorded as a 500 without
    details. Both are recorded once and acknowledged."""

    @action(str(KIND), max_attempts=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        raise error

    async with stage.runner([handler]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "failed"]
    assert operation.error is not None
    if recorded is not None:
        assert operation.error == recorded
    else:
        assert (operation.error.code, "secret" in operation.error.message) == (500, False)


async def test_input_that_the_type_refuses(stage: RunnerStage) -> None:
    """Input that passed the schema but does not fit the handler's type fails the operation as InvalidInput."""

    @action(str(KIND))
    async def handler(request: Strict, ctx: ActionContext) -> None:
        return None

    async with stage.runner([handler]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
    assert operation.error is not None
    assert operation.error.code == ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(("size", "status"), [(1000, Status.SUCCEEDED), (1001, Status.FAILED)])
async def test_the_limit_of_a_result(stage: RunnerStage, size: int, status: Status) -> None:
    """A result of exactly the limit is recorded; one byte more fails the operation, once."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> str:
        return "x" * (size - 2)

    async with stage.runner([handler], dependencies=stage.dependencies(result_limit=1000)):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.position) == (status, 3)


async def test_a_result_that_the_journal_refuses(stage: RunnerStage) -> None:
    """A result within the runner's limit but beyond the journal's fails the operation and is not retried."""

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> str:
        return "x" * 9000

    journal = await opened(stage.link, max_msg_size=8000)
    async with stage.runner([handler], dependencies=stage.dependencies(journal=journal)):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.error is not None
    assert (operation.error.code, operation.attempt) == (ErrorCode.RESULT_TOO_LARGE, 1)


async def test_never_more_at_once_than_slots(broker: Broker, stage: RunnerStage) -> None:
    """A runner has no more attempts, and no more messages, than slots. A second runner takes its share of the rest."""
    first, second = HandlerGate(), HandlerGate()
    ids = [f"op-{number}" for number in range(12)]
    async with linked(broker.url) as other:
        dependencies = stage.dependencies(journal=await opened(other))
        async with stage.runner([gated(first)], concurrency=3):
            await stage.request(*ids)
            await first.entered(3)
            info = await stage.consumer()
            assert (info.num_ack_pending, info.num_pending) == (3, 9)
            async with stage.runner([gated(second)], link=other, dependencies=dependencies, concurrency=4):
                await second.entered(4)
                assert (await stage.consumer()).num_pending == 5
                first.open()
                second.open()
                for one in ids:
                    await stage.ended(one)
    assert sorted(first.attempts + second.attempts) == sorted((one, 1) for one in ids)
    assert (first.most, second.most) == (3, 4)


class HeldOutcomes(Journal):
    """A journal that is slow to store outcomes: it waits with them until the test lets it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, max_msg_size=Sizing().max_msg_size, clock=time.monotonic)
        self.held: list[str] = []
        self.released = asyncio.Event()

    async def append(self, kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        if isinstance(event.data, Succeeded):
            self.held.append(event.operation_id)
            await self.released.wait()
        return await super().append(kind, event, expected, budget=budget)


@pytest.fixture
async def outcomes(link: Connection) -> HeldOutcomes:
    """The journal of a runner whose outcomes are held."""
    journal = HeldOutcomes(link)
    await journal.start()
    return journal


async def test_an_outcome_on_its_way_takes_no_slot(outcomes: HeldOutcomes, stage: RunnerStage) -> None:
    """While outcomes are being stored, other handlers run; but no more outcomes wait than there are slots besides."""
    gate = HandlerGate()
    gate.open()
    ids = [f"op-{number}" for number in range(12)]
    async with stage.runner([gated(gate)], dependencies=stage.dependencies(journal=outcomes), concurrency=3):
        await stage.request(*ids)
        await eventually(lambda: len(outcomes.held) == 6)
        info = await stage.consumer()
        assert (info.num_ack_pending, info.num_pending, len(gate.contexts)) == (6, 6, 6)
        outcomes.released.set()
        for one in ids:
            await stage.ended(one)
        await stage.settled()
    assert sorted(gate.attempts) == sorted((one, 1) for one in ids)
    assert gate.most <= 3


async def test_a_runner_ends_after_its_outcomes(outcomes: HeldOutcomes, stage: RunnerStage) -> None:
    """A drain waits for outcomes that take no slot, and takes nothing new meanwhile."""
    gate = HandlerGate()
    gate.open()
    ids = [f"op-{number}" for number in range(4)]
    dependencies = stage.dependencies(journal=outcomes)
    async with stage.runner([gated(gate)], dependencies=dependencies, concurrency=1, drain=60.0) as runner:
        await stage.request(*ids)
        await eventually(lambda: len(outcomes.held) == 2)
        stopping = asyncio.create_task(runner.stop())
        await eventually(lambda: not runner.is_ready)
        assert not stopping.done()
        outcomes.released.set()
        await stopping
        assert {(await stage.state(one)).status for one in outcomes.held} == {Status.SUCCEEDED}
        assert len(outcomes.held) == 2


async def test_two_runners_race(broker: Broker, stage: RunnerStage) -> None:
    """Of many operations on two runners each runs once, if no runner dies."""
    gate = HandlerGate()
    gate.open()
    ids = [f"op-{number}" for number in range(200)]
    async with linked(broker.url) as other:
        dependencies = stage.dependencies(journal=await opened(other))
        async with stage.runner([gated(gate)]), stage.runner([gated(gate)], link=other, dependencies=dependencies):
            await stage.request(*ids)
            await stage.settled(within=20)
    assert sorted(gate.attempts) == sorted((one, 1) for one in ids)
    assert {(await stage.state(one)).status for one in ids} == {Status.SUCCEEDED}


async def test_a_dispatcher_keeps_nothing(stage: RunnerStage) -> None:
    """After many operations a dispatcher has no attempt, task or timer of any of them."""
    gate = HandlerGate()
    gate.open()
    before = asyncio.all_tasks()
    async with stage.runner([gated(gate, lease=1)]) as runner:
        await stage.request(*(f"op-{number}" for number in range(100)))
        await stage.settled()
        (dispatcher,) = runner._dispatchers.values()
        await eventually(lambda: not dispatcher._tasks)
        assert dispatcher._attempts == {}
    left = asyncio.all_tasks() - before
    assert [task.get_name() for task in left if "nats" not in repr(task)] == []
