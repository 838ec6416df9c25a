"""Priorities where each role has its own login: what API and runner may do for them, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from opstream_journal import Connection
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.timers import queue_request
from opstream_schemas import subjects
from opstream_schemas.broker_access.permissions import access_of
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import initial
from opstream_schemas.operation.state import Status
from tests.support.broker.roles import RoleBroker
from tests.support.journal.journals import KIND, opened
from tests.support.runner.stage import HandlerGate, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def fired(operator: Connection) -> set[str]:
    """The subjects of all wake-ups in the journal."""
    info = await operator.nc.jetstream().stream_info(
        subjects.OPERATIONS_STREAM, subjects_filter=subjects.WAKE_DESTINATION
    )
    return set(info.state.subjects or {})


async def test_each_role_does_its_part(tmp_path: Path) -> None:
    """The API puts a request into the queue of its priority, and wakes nothing else; the runner takes it from there."""
    gate = HandlerGate()
    gate.open()
    prioritized = gated(gate, priority="normal")
    with RoleBroker(tmp_path, [access_of(prioritized.spec)]) as broker:
        operator = await broker.connect("admin")
        await provision(operator, Sizing(), specs=[prioritized.spec])
        api, runner = await broker.connect("api"), await broker.connect("runner")
        asking, working = RunnerStage(api, await opened(api)), RunnerStage(runner, await opened(runner))
        (event,) = await asking.request("op-1", priority="high")
        queue_request(api, initial(event))
        other = Kind("book", "remove")
        for subject in (
            subjects.fired_wake_subject(KIND, "op-1", "retry"),
            subjects.fired_wake_subject(KIND, "op-1", "retry", "high"),
            subjects.fired_wake_subject(other, "op-1", subjects.QUEUED_REASON, "high"),
        ):
            api.sender.send(subject, b"{}")
        await api.nc.flush()
        wanted = subjects.queued_request_subject(KIND, "op-1", "high")
        await eventually(lambda: _has(operator, wanted))

        assert await fired(operator) == {wanted}
        async with working.runner([prioritized]):
            ended = await working.ended("op-1")
        assert (ended.status, ended.attempt) == (Status.SUCCEEDED, 1)
        for link in (api, runner, operator):
            await link.close()


async def _has(operator: Connection, subject: str) -> bool:
    return subject in await fired(operator)
