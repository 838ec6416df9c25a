"""Waits on a real broker, with a runner and a projector: the attempt ends, and the signal begins the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal, VersionConflict
from opstream_journal.stores.timers import send_wake_up
from opstream_projector.after_effects import Waker
from opstream_runner.authoring.action import collect_actions
from opstream_runner.runner import Runner
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Signaled, WaitBegun
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from tests.support.projector.projection import projector, running
from tests.support.runner import wait_actions
from tests.support.runner.stage import RunnerStage
from tests.support.runner.wait_actions import lines
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

EVERY = [Kind("wait", name) for name in ("async", "plain", "async-apart", "plain-apart")]
ASYNC, APART = EVERY[0], EVERY[2]
every = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.action)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def runner(stage: RunnerStage) -> AsyncIterator[Runner]:
    """A runner of the actions that wait."""
    async with stage.runner(collect_actions([wait_actions])) as runner:
        yield runner


@pytest.fixture
async def waker(link: Connection, journal: Journal) -> AsyncIterator[None]:
    """A projector that wakes what has its signal."""
    async with running(projector(link, journal, effects=[Waker(link)])):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where attempts are noted."""
    return tmp_path / "attempts"


async def begin(stage: RunnerStage, kind: Kind, file: Path, *, own_id: str = "", caller: str = "", **plan: Any) -> None:
    """Request op-1."""
    given = msgspec.json.encode({"file": str(file), **plan})
    await stage.request("op-1", kind=kind, given=given, own_id=own_id, caller=caller)


async def send(stage: RunnerStage, payload: Any, name: str = "approval", by: str = "") -> None:
    """Record a signal, as the API does."""
    data = Signaled(signal=name, payload=msgspec.Raw(msgspec.json.encode(payload)), by=by)
    while True:
        try:
            await stage.append("op-1", data)
        except VersionConflict:
            continue
        return


async def awaited(stage: RunnerStage, name: str = "approval") -> Operation:
    """The operation once it waits for a signal."""

    return await stage.reached("op-1", lambda operation: operation.receiver.awaited == name)


def result_of(operation: Operation) -> Any:
    """The result of an operation that has succeeded."""
    assert operation.status is Status.SUCCEEDED, operation.error
    assert isinstance(operation.result, msgspec.Raw)
    return msgspec.json.decode(operation.result)


async def is_idle(stage: RunnerStage, kind: Kind) -> bool:
    """Whether the broker waits for no runner of an action."""
    info = await stage.link.nc.jetstream().consumer_info("OPERATIONS", f"runner_{kind.resource}_{kind.action}")
    return (info.num_ack_pending, info.num_pending) == (0, 0)


@every
@pytest.mark.usefixtures("waker")
async def test_a_signal_begins_the_next_attempt(stage: RunnerStage, runner: Runner, kind: Kind, file: Path) -> None:
    """The attempt ends, no slot and no message is held, and the attempt after the signal gets it at the same place."""
    await begin(stage, kind, file, names=["approval", "payment"])
    waits = await awaited(stage)
    assert (waits.status, waits.live, waits.attempts_used) == (Status.RUNNING, None, 0)
    await eventually(lambda: is_idle(stage, kind))
    assert all(one.running == 0 for one in runner._dispatchers.values())
    await send(stage, {"approved": True})
    await awaited(stage, "payment")
    await send(stage, {"approved": False}, name="payment")
    ended = await stage.ended("op-1")
    assert result_of(ended) == {"attempt": 3, "found": [{"approved": True}, {"approved": False}]}
    assert lines(file) == ["begins 1", "leaves 1", "begins 2", "leaves 2", "begins 3", "leaves 3", "has 3"]
    assert await stage.names("op-1") == [
        *("requested", "started", "waiting", "signaled", "started", "waiting", "signaled", "started", "succeeded")
    ]
    await eventually(lambda: is_idle(stage, kind))


@every
@pytest.mark.usefixtures("runner")
async def test_one_that_came_first_is_taken(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """Kept from before the first attempt, without a projector: the runner that records the wait sends the wake-up."""
    given = msgspec.json.encode({"file": str(file)})
    await stage.request("op-1", kind=kind, given=given, start_at=datetime.now(UTC) + timedelta(seconds=0.5))
    await send(stage, {"approved": True})
    ended = await stage.ended("op-1")
    assert result_of(ended) == {"attempt": 2, "found": [{"approved": True}]}


@every
@pytest.mark.usefixtures("runner")
async def test_a_time_limit(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """A wait that is over without its signal raises, in this and in each later attempt; caught, the work goes on."""
    await begin(stage, kind, file, timeout=0.2, catches=True, fails=True)
    ended = await stage.ended("op-1")
    assert result_of(ended) == {"attempt": 3, "found": ["late"]}
    assert await stage.names("op-1") == [
        *("requested", "started", "waiting", "started", "attempt-failed", "started", "succeeded")
    ]


@pytest.mark.parametrize("kind", [ASYNC, APART], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner")
async def test_an_uncaught_time_limit_fails_the_operation(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """For good, with a code of its own."""
    await begin(stage, kind, file, timeout=0.2)
    ended = await stage.ended("op-1")
    assert ended.error is not None
    assert (ended.error.code, ended.error.target) == (ErrorCode.WAIT_TIMED_OUT, "approval")


@every
@pytest.mark.usefixtures("runner", "waker")
async def test_a_later_attempt_gets_the_same(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """An attempt that fails after its signal is followed by one that has it at once."""
    await begin(stage, kind, file, fails=True)
    await awaited(stage)
    await send(stage, {"approved": True})
    ended = await stage.ended("op-1")
    assert result_of(ended) == {"attempt": 3, "found": [{"approved": True}]}
    assert (ended.attempt, ended.attempts_used) == (3, 2)


@pytest.mark.parametrize("kind", [ASYNC, APART], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner", "waker")
async def test_one_that_does_not_fit_is_passed_over(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """A kept signal of another shape completes nothing; the event of the wait says which, and why."""
    given = msgspec.json.encode({"file": str(file)})
    await stage.request("op-1", kind=kind, given=given, start_at=datetime.now(UTC) + timedelta(seconds=0.5))
    await send(stage, {"approved": "perhaps"})
    await awaited(stage)
    (wait,) = [data for data in await stage.datas("op-1") if isinstance(data, WaitBegun)]
    assert [one.position for one in wait.refused] == [2]
    assert "Expected `bool`, got `str`" in wait.refused[0].reason
    await send(stage, {"approved": True})
    assert result_of(await stage.ended("op-1"))["found"] == [{"approved": True}]


@pytest.mark.parametrize("kind", [ASYNC, APART], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner", "waker")
async def test_approvers(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """Two different callers, and not the requester; the result has both, in their order."""
    await begin(stage, kind, file, own_id="mine", caller="ann", approvers=2, not_requester=True)
    await awaited(stage)
    for by, approved in (("ann", False), ("bob", True), ("bob", False), ("", False), ("cy", True)):
        await send(stage, {"approved": approved}, by=by)
    assert result_of(await stage.ended("op-1"))["found"] == [[{"approved": True}, {"approved": True}]]


@every
@pytest.mark.parametrize("plan", [{"approvers": 2}, {"not_requester": True}, {"twice": True}], ids=str)
@pytest.mark.usefixtures("runner", "waker")
async def test_a_wait_that_can_never_be(
    stage: RunnerStage, kind: Kind, file: Path, plan: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Approvers of an operation without authentication, and a name twice: it fails at once, and the log says why."""
    await begin(stage, kind, file, **plan)
    if "twice" in plan:
        await awaited(stage)
        await send(stage, {"approved": True})
    ended = await stage.ended("op-1")
    assert ended.error is not None
    assert ended.error.code == ErrorCode.INVALID_WAIT
    if "apart" not in kind.action:  # the log of a process of its own goes to its stderr
        assert ("twice" if "twice" in plan else "--auth") in caplog.text


@pytest.mark.parametrize("kind", [ASYNC, APART], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner", "waker")
async def test_in_a_task_group(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """A wait in one task stops the others of its group, and is a wait all the same."""
    await begin(stage, kind, file, group=True)
    await awaited(stage)
    assert lines(file) == ["begins 1", "leaves 1"]


@pytest.mark.usefixtures("runner")
async def test_wake_ups_too_many(stage: RunnerStage, file: Path) -> None:
    """A wake-up of another number begins nothing, and the time limit stays; a second one of the same begins nothing."""
    await begin(stage, ASYNC, file)
    waits = await awaited(stage)
    assert waits.waiting is not None
    await send_wake_up(stage.link, ASYNC, "op-1", "hold", armed_by=1)
    await eventually(lambda: is_idle(stage, ASYNC))
    assert await stage.names("op-1") == ["requested", "started", "waiting"]
    await send(stage, {"approved": True})
    for _ in range(3):
        await send_wake_up(stage.link, ASYNC, "op-1", "signal", armed_by=waits.waiting.sequence)
    assert result_of(await stage.ended("op-1"))["attempt"] == 2
    await eventually(lambda: is_idle(stage, ASYNC))
    assert (await stage.state("op-1")).attempt == 2


@pytest.mark.usefixtures("runner")
async def test_a_lock_that_is_handed_over_wakes_what_has_its_signal(stage: RunnerStage, file: Path) -> None:
    """A wake-up of another number does not put an operation off that has its signal: it begins at once."""
    await begin(stage, ASYNC, file)
    await awaited(stage)
    await send(stage, {"approved": True})
    await send_wake_up(stage.link, ASYNC, "op-1", "hold", armed_by=1)
    assert result_of(await stage.ended("op-1"))["attempt"] == 2
