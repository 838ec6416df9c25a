"""Results of steps that are too large for an event: stored before it, read by the next attempt, never made twice."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_payloads.documents import Documents
from opstream_payloads.drivers import open_store
from opstream_payloads.errors import PayloadDamaged, StoreUnavailable
from opstream_payloads.location import StoreLocation
from opstream_payloads.payloads import Payloads
from opstream_runner.attempt import step_recorder
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import StepSucceeded
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from opstream_schemas.payloads.payload_ref import PayloadRef
from tests.support.payloads import payload_actions
from tests.support.payloads.payload_actions import Steps
from tests.support.runner.stage import RunnerStage

pytestmark = pytest.mark.broker

LARGE = 600_000
"""Characters of a text that is too large for an event."""
LIMIT = 4 * 1024 * 1024


class RestlessDocuments(Documents):
    """Documents whose store fails so many times first, in either direction, or has other bytes."""

    failures = 0
    damaged_reads = 0

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailable("the store is away for a moment")

    async def store(self, operation_id: str, document: bytes) -> PayloadRef:
        self._fail()
        return await super().store(operation_id, document)

    async def read(
        self, operation_id: str, document: msgspec.Raw | msgspec.UnsetType, payload: PayloadRef | None
    ) -> msgspec.Raw:
        if payload is not None:
            self._fail()
            if self.damaged_reads > 0:
                self.damaged_reads -= 1
                raise PayloadDamaged(f"{payload.uri} has other bytes")
        return await super().read(operation_id, document, payload)


@pytest.fixture
def location(tmp_path: Path) -> StoreLocation:
    return StoreLocation(folder=str(tmp_path / "payloads"))


@pytest.fixture
async def documents(link: Connection, location: StoreLocation) -> RestlessDocuments:
    """In a folder."""
    store = await open_store(location, link, lambda: datetime.now(UTC))
    return RestlessDocuments(Payloads(store, lambda: str(uuid.uuid4())))


@pytest.fixture
async def stage(
    link: Connection, journal: Journal, documents: RestlessDocuments, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunnerStage]:
    """A stage with a runner that has the store."""
    monkeypatch.setattr(step_recorder, "_OUTAGE_DELAY", 0.01)
    stage = RunnerStage(link, journal)
    dependencies = stage.dependencies(result_limit=LIMIT, documents=documents)
    async with stage.runner(collect_actions([payload_actions]), dependencies=dependencies):
        yield stage


async def run(stage: RunnerStage, action: str, given: Steps) -> Operation:
    """Request, and wait for the end."""
    await stage.request("op-1", kind=Kind("big", action), given=msgspec.json.encode(given))
    return await stage.ended("op-1", within=30)


async def recorded(stage: RunnerStage) -> list[StepSucceeded]:
    """The results of its steps."""
    return [data for data in await stage.datas("op-1") if isinstance(data, StepSucceeded)]


@pytest.mark.parametrize("sort", ["step", "step-plain", "step-apart"])
async def test_the_next_attempt_reads_it(stage: RunnerStage, tmp_path: Path, sort: str) -> None:
    """In a handler of each sort: the event has a claim check, and the step runs once."""
    ended = await run(stage, sort, Steps(size=LARGE, log=str(tmp_path / "log")))
    assert (ended.status, ended.attempt, ended.result) == (Status.SUCCEEDED, 2, msgspec.Raw(b"%d" % LARGE))
    (event,) = [one for one in await stage.events("op-1") if isinstance(one.data, StepSucceeded)]
    assert event.type == "opstream.action.step-succeeded.v2"
    (data,) = await recorded(stage)
    assert data.result is msgspec.UNSET
    assert data.result_payload is not None
    assert data.result_payload.size == LARGE + 2
    assert (tmp_path / "log").read_text() == "called\n"


async def test_a_store_that_is_away(stage: RunnerStage, documents: RestlessDocuments, tmp_path: Path) -> None:
    """The step waits for it, in the same attempt, when its result is stored and when it is read."""
    documents.failures = 3
    ended = await run(stage, "step", Steps(size=LARGE, log=str(tmp_path / "log"), fails=0))
    assert (ended.status, ended.attempt, documents.failures) == (Status.SUCCEEDED, 1, 0)
    assert (tmp_path / "log").read_text() == "called\n"


@pytest.mark.parametrize("sort", ["step", "step-plain", "step-apart"])
async def test_a_result_that_is_damaged(
    stage: RunnerStage, documents: RestlessDocuments, tmp_path: Path, caplog: pytest.LogCaptureFixture, sort: str
) -> None:
    """It is never taken for the right one, and the step does not run again: the attempts fail until it is restored."""
    documents.damaged_reads = 2
    ended = await run(stage, sort, Steps(size=LARGE, log=str(tmp_path / "log")))
    assert (ended.status, ended.attempt) == (Status.SUCCEEDED, 4)
    assert caplog.text.count("has other bytes") >= 2
    assert (tmp_path / "log").read_text() == "called\n"


async def test_limits(stage: RunnerStage, tmp_path: Path) -> None:
    """What fits stays in its event, of version 1; what is over `--max-result` ends the operation."""
    ended = await run(stage, "step", Steps(size=200_000, log=str(tmp_path / "log"), fails=0))
    assert ended.status is Status.SUCCEEDED
    assert [data.wire_type for data in await recorded(stage)] == ["opstream.action.step-succeeded.v1"]
    await stage.request(
        "op-2",
        kind=Kind("big", "step"),
        given=msgspec.json.encode(Steps(size=LIMIT, log=str(tmp_path / "log"))),
    )
    failed = await stage.ended("op-2", within=30)
    assert failed.error is not None
    assert failed.error.code == ErrorCode.STEP_RESULT_TOO_LARGE
