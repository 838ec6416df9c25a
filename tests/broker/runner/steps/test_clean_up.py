"""`clean_up=True` on a real broker, with a runner and a projector: a cancel reaches each kind of handler that waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_projector.after_effects import Waker
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import RequestCancel, decide
from opstream_schemas.operation.state import Operation, Status
from opstream_schemas.status_monitor import build_status_monitor
from tests.support.clean_up import order_actions
from tests.support.projector.projection import projector, running
from tests.support.runner.stage import RunnerStage
from tests.support.runner.step_actions import calls

pytestmark = pytest.mark.broker

EVERY = [Kind("order", name) for name in ("async", "plain", "async-apart", "plain-apart")]
every = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.action)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def waker(link: Connection, journal: Journal) -> AsyncIterator[None]:
    """A projector that wakes what was canceled in a wait."""
    async with running(projector(link, journal, effects=[Waker(link)])):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the calls are noted."""
    return tmp_path / "calls"


async def begin(stage: RunnerStage, kind: Kind, file: Path, wait: str = "sleep", die: str = "") -> Operation:
    """Request op-1, and return it once it waits."""
    await stage.request("op-1", kind=kind, given=msgspec.json.encode({"file": str(file), "wait": wait, "die": die}))
    return await stage.reached("op-1", lambda operation: operation.wait)


async def cancel(stage: RunnerStage, operation: Operation) -> None:
    """Record a cancel request, as the API does."""
    data = decide(operation, RequestCancel(by="ann"))
    assert data is not None
    await stage.append("op-1", data)


@every
@pytest.mark.parametrize("wait", ["sleep", "signal"])
@pytest.mark.usefixtures("waker")
async def test_what_waits_is_canceled(stage: RunnerStage, kind: Kind, wait: str, file: Path) -> None:
    """An attempt begins for that alone, gets what is recorded, and refunds; then the operation is canceled."""
    waits = await begin_with_runner(stage, kind, file, wait)
    async with stage.runner(collect_actions([order_actions])):
        await cancel(stage, waits)
        ended = await stage.ended("op-1")
    assert (ended.status, ended.attempt) == (Status.CANCELED, 2)
    assert calls(file) == ["charge", "refund"]


async def begin_with_runner(stage: RunnerStage, kind: Kind, file: Path, wait: str) -> Operation:
    """Let a runner come to the wait, and stop it: then what is canceled waits for a runner."""
    async with stage.runner(collect_actions([order_actions])):
        return await begin(stage, kind, file, wait)


async def test_the_status_meanwhile(stage: RunnerStage, file: Path) -> None:
    """An operation that was canceled in its wait does not wait for that any more."""
    waits = await begin_with_runner(stage, EVERY[0], file, "signal")
    assert build_status_monitor(waits).waiting_for == "Signal"
    await cancel(stage, waits)
    monitor = build_status_monitor(await stage.state("op-1"))
    assert (monitor.status, monitor.cancel_requested, monitor.waiting_for) == (Status.RUNNING, True, "")


@pytest.mark.parametrize("kind", [EVERY[2], EVERY[3]], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("waker")
async def test_a_clean_up_that_dies(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """The process of the handler dies in its clean-up: another attempt is canceled at the same place, and goes on."""
    async with stage.runner(collect_actions([order_actions])):
        await cancel(stage, await begin(stage, kind, file, die="tell"))
        ended = await stage.ended("op-1", within=30)
    assert ended.status is Status.CANCELED
    assert calls(file) == ["charge", "refund", "tell", "tell"]


@every
@pytest.mark.usefixtures("waker")
async def test_a_wake_up_that_was_lost(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """The wake-up is sent with each event that follows, and one too many begins nothing."""
    waits = await begin_with_runner(stage, kind, file, "sleep")
    await cancel(stage, waits)
    async with stage.runner(collect_actions([order_actions])):
        ended = await stage.ended("op-1")
    assert (ended.status, ended.attempt, calls(file)) == (Status.CANCELED, 2, ["charge", "refund"])
