"""Steps on a real broker: what one attempt has recorded, the next one takes, whatever ended the first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner.authoring.action import collect_actions
from opstream_runner.runner import Runner
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import StepFailed, StepStarted, StepSucceeded
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from tests.support.runner import step_actions
from tests.support.runner.stage import RunnerStage
from tests.support.runner.step_actions import calls
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

EVERY = [Kind("step", name) for name in ("async", "plain", "async-apart", "plain-apart")]
every = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.action)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def runner(stage: RunnerStage) -> AsyncIterator[Runner]:
    """A runner of the actions with steps."""
    async with stage.runner(collect_actions([step_actions])) as runner:
        yield runner


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the calls are noted."""
    return tmp_path / "calls"


async def begin(stage: RunnerStage, kind: Kind, file: Path, **given: Any) -> None:
    """Request op-1."""
    await stage.request("op-1", kind=kind, given=msgspec.json.encode({"file": str(file), **given}))


def result_of(operation: Operation) -> Any:
    """The result of an operation that has succeeded."""
    assert operation.status is Status.SUCCEEDED, operation.error
    assert isinstance(operation.result, msgspec.Raw)
    return msgspec.json.decode(operation.result)


@every
@pytest.mark.usefixtures("runner")
async def test_a_step_is_done_once(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """The second attempt takes what the first one has recorded, and only the end runs again."""
    await begin(stage, kind, file, how="fail")
    ended = await stage.ended("op-1", within=20)
    assert result_of(ended) == {
        "attempt": 2,
        "first": {"name": "one", "number": 1, "rest": ""},
        "second": {"name": "two", "number": 2, "rest": ""},
    }
    assert calls(file) == ["one", "two", "end 1", "end 2"]
    assert await stage.names("op-1") == [
        *("requested", "started", "step-succeeded", "step-succeeded", "attempt-failed", "started", "succeeded")
    ]
    steps = [data for data in await stage.datas("op-1") if isinstance(data, StepSucceeded)]
    assert [(one.step, one.key, one.attempt, one.tries) for one in steps] == [("one", "", 1, 1), ("two", "", 1, 1)]
    assert ended.fold_version == 3


@pytest.mark.parametrize("kind", EVERY[2:], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner")
async def test_a_process_that_dies_has_done_its_steps(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """What the runner has answered is in the journal, so the next process takes it."""
    await begin(stage, kind, file, how="die")
    result_of(await stage.ended("op-1", within=20))
    assert calls(file) == ["one", "two", "end 1", "end 2"]


@every
@pytest.mark.usefixtures("runner")
async def test_another_input_runs_again(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """By default a step whose arguments have changed runs again, and the others are taken."""
    await begin(stage, kind, file, how="fail", changed=True)
    result_of(await stage.ended("op-1", within=20))
    assert calls(file) == ["one", "two", "end 1", "two", "end 2"]
    steps = [data for data in await stage.datas("op-1") if isinstance(data, StepSucceeded)]
    assert [(one.step, one.attempt) for one in steps] == [("one", 1), ("two", 1), ("two", 2)]
    assert len({one.input_hash for one in steps}) == 3


@every
@pytest.mark.usefixtures("runner")
async def test_another_input_of_a_step_that_runs_once(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """With at most once it fails for good instead, and says which step and attempt it was."""
    await begin(stage, kind, file, how="fail", changed=True, once=True)
    ended = await stage.ended("op-1", within=20)
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == (ErrorCode.STEP_INPUT_CHANGED, 2)
    assert ended.error.message == "step 'two' was recorded in attempt 1 with other arguments"
    assert calls(file) == ["one", "two", "end 1"]


@pytest.mark.usefixtures("runner")
async def test_at_most_once_is_not_begun_twice(stage: RunnerStage, file: Path) -> None:
    """A process that dies in the middle of such a step leaves its start; the next attempt fails, and runs nothing."""
    await begin(stage, Kind("step", "plain-apart"), file, how="die-inside", once=True)
    ended = await stage.ended("op-1", within=20)
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == (ErrorCode.STEP_INTERRUPTED, 2)
    assert "step 'two' was begun in attempt 1" in ended.error.message
    assert calls(file) == ["one", "two"]
    assert [type(one) for one in await stage.datas("op-1") if isinstance(one, StepStarted)] == [StepStarted]


@every
@pytest.mark.usefixtures("runner")
async def test_a_result_that_is_too_large(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """It fails at once and says what to do: another attempt would return the same."""
    await begin(stage, kind, file, size=10_000)
    ended = await stage.ended("op-1", within=20)
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == (ErrorCode.STEP_RESULT_TOO_LARGE, 1)
    assert "10000 are allowed: store it elsewhere in the step, and return where it is" in ended.error.message
    assert [data.step for data in await stage.datas("op-1") if isinstance(data, StepSucceeded)] == ["one"]


@pytest.mark.parametrize("kind", [EVERY[0], *EVERY[2:]], ids=lambda kind: kind.action)
@pytest.mark.usefixtures("runner")
async def test_a_cancel_in_the_middle_of_a_step(stage: RunnerStage, kind: Kind, file: Path) -> None:
    """The step is stopped and not recorded; what was recorded before stays."""
    await begin(stage, kind, file, how="hang")
    await eventually(lambda: calls(file) == ["one", "two"], within=10)
    await stage.request_cancel("op-1")
    ended = await stage.ended("op-1", within=20)
    assert ended.status is Status.CANCELED
    assert calls(file) == ["one", "two"]
    assert [data.step for data in await stage.datas("op-1") if isinstance(data, StepSucceeded | StepFailed)] == ["one"]


@pytest.mark.usefixtures("runner")
async def test_a_forgotten_await_apart(stage: RunnerStage, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A process of its own says what to write, too; the operation has failed for good, and the step was not run."""
    await begin(stage, Kind("step", "forgets-apart"), file)
    ended = await stage.ended("op-1", within=20)
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == (ErrorCode.INVALID_STEP, 1)
    assert "step-succeeded" not in await stage.names("op-1")
    place = f"{step_actions.__file__}:{step_actions.forget.__code__.co_firstlineno + 2}"
    assert f"step 'one' at {place} was never awaited: write `await ctx.step(...)`" in capfd.readouterr().err
