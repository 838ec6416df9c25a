"""Each crash point once: the process ends there, and its successor finishes the work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import msgspec
import pytest

from opstream_journal.runtime.crash_points import CrashPoint
from opstream_journal.schedules.schedule_stream import ScheduleStream
from opstream_schemas.schedules.schedule import Schedule, occurrence_id
from opstream_schemas.schedules.schedule_event import ScheduleAct, ScheduleChanged
from tests.support.chaos.actions import LARGE
from tests.support.chaos.checks import end_of, find_breaches, read_marks
from tests.support.chaos.clients import Clients
from tests.support.chaos.jobs import CHILD_FAILED, GOOD, INTERRUPTED, Job
from tests.support.chaos.state import gather_quiet
from tests.support.chaos.system import ChaosSystem
from tests.support.journal.journals import linked
from tests.support.system.invariants import breaches
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """The service that passes the point, and the expected result."""

    part: str
    point: str
    """Optionally with the number of the pass."""
    action: str = "quick"
    work: dict[str, Any] = {}
    operations: int = 1
    end: str = GOOD
    attempt: int = 1
    """Of the last operation."""
    calls: int = 1
    """Of all its handlers."""

    def __str__(self) -> str:
        return f"{self.part}-{self.point}-{self.action}"


NAP = {"seconds": 0.4}
CASES = [
    Case(part="api", point=CrashPoint.API_RECORDED),
    Case(part="api", point=CrashPoint.API_PAYLOAD_STORED, action="large", work={"filler": "x" * LARGE}),
    Case(part="api", point=CrashPoint.JOURNAL_PUBLISHES),
    Case(part="api", point=CrashPoint.JOURNAL_STORED),
    Case(part="runner", point=f"{CrashPoint.JOURNAL_PUBLISHES}:1"),
    Case(part="runner", point=f"{CrashPoint.JOURNAL_STORED}:1", attempt=2),
    Case(part="runner", point=CrashPoint.RUNNER_STARTED, attempt=2),
    Case(part="runner", point=CrashPoint.RUNNER_HANDLED, attempt=2, calls=2),
    Case(part="runner", point=f"{CrashPoint.RUNNER_PAYLOAD_STORED}:1", action="large", attempt=2, calls=2),
    Case(part="runner", point=f"{CrashPoint.RUNNER_PAYLOAD_STORED}:2", action="large", attempt=2, calls=2),
    Case(part="runner", point=f"{CrashPoint.JOURNAL_PUBLISHES}:2", attempt=2, calls=2),
    Case(part="runner", point=f"{CrashPoint.JOURNAL_STORED}:2"),
    Case(part="runner", point=CrashPoint.RUNNER_CONCLUDED),
    Case(part="runner", point=f"{CrashPoint.RUNNER_STEP_DONE}:2", action="stepping", attempt=2, calls=2),
    Case(part="runner", point=f"{CrashPoint.RUNNER_STEP_RECORDED}:2", action="stepping", attempt=2, calls=2),
    Case(part="runner", point=CrashPoint.RUNNER_STEP_BEGINS, action="stepping", attempt=2, calls=2),
    Case(
        part="runner",
        point=f"{CrashPoint.RUNNER_STEP_RECORDED}:4",
        action="stepping",
        end=INTERRUPTED,
        attempt=2,
        calls=2,
    ),
    Case(part="runner", point=f"{CrashPoint.RUNNER_STEP_DONE}:3", action="stepping-apart", attempt=2, calls=2),
    Case(part="runner", point=CrashPoint.RUNNER_ATTEMPT_FAILED, action="flaky", work={"bad": 1}, attempt=2, calls=2),
    Case(part="runner", point=CrashPoint.RUNNER_WAKE_ARMED, action="flaky", work={"bad": 1}, attempt=2, calls=2),
    Case(part="runner", point=CrashPoint.RUNNER_WAITING, action="napping", work=NAP, attempt=3, calls=3),
    Case(part="runner", point=f"{CrashPoint.RUNNER_WAITING}:2", action="napping", work=NAP, attempt=3, calls=3),
    Case(part="runner", point=CrashPoint.RUNNER_WAKE_ARMED, action="napping", work=NAP, attempt=3, calls=3),
    # The child is still at work when the next attempt looks at it.
    Case(
        part="runner",
        point=CrashPoint.RUNNER_CHILDREN_BEGUN,
        action="parent",
        work={"seconds": 3},
        attempt=3,
        calls=3,
    ),
    Case(part="projector", point=CrashPoint.PROJECTOR_PARENT_WOKEN, action="parent", attempt=2, calls=2),
    Case(
        part="projector",
        point=CrashPoint.PROJECTOR_CHILD_CANCELED,
        action="hasty",
        end=CHILD_FAILED,
        attempt=2,
        calls=2,
    ),
    Case(part="runner", point=CrashPoint.HOLD_LEFT, action="napping", work=NAP, operations=2, attempt=3, calls=3),
    Case(part="runner", point=CrashPoint.HOLD_TAKEN, action="alone"),
    Case(part="runner", point=CrashPoint.HOLD_LEFT, action="alone", work={"seconds": 0.2}, operations=2),
    Case(part="runner", point=CrashPoint.HOLD_HANDED_OVER, action="alone", work={"seconds": 0.2}, operations=2),
    Case(part="projector", point=CrashPoint.HOLD_LEFT, action="alone", work={"seconds": 0.2}, operations=2),
    Case(part="projector", point=CrashPoint.PROJECTOR_WRITTEN),
    Case(part="projector", point=CrashPoint.PROJECTOR_INDEXED),
    Case(
        part="projector",
        point=CrashPoint.PROJECTOR_DEADLINE_ARMED,
        action="late",
        work={"seconds": 30.0},
        end="Failed DeadlineExceeded",
    ),
]

SCHEDULE_POINTS = (CrashPoint.JOURNAL_PUBLISHES, CrashPoint.JOURNAL_STORED, CrashPoint.SCHEDULE_SUBMITTED)
"""Where the process ends that submits what is due: before the submit, after it, and before it is recorded."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosSystem]:
    """A system with one process of each service, and an index."""
    folder = tmp_path_factory.mktemp("points")
    with ExitStack() as stack:
        system = ChaosSystem(folder, stack, environment={"OPSTREAM_INDEX": f"sqlite:{folder / 'index.db'}"})
        system.begin()
        yield system


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_point(system: ChaosSystem, case: Case) -> None:
    """The process ends at the point; its successor finishes the work, and repeats nothing that was recorded."""
    system.revive()  # not in a thread: the kernel ends processes together with the thread that started them
    resources = ("one",) if case.point.startswith("hold") or case.action == "napping" else ()
    job = Job(action=case.action, ends=frozenset({case.end}), resources=resources, work=lambda _: case.work, cancels=0)
    # The projector releases locks of what has ended, too: without it, the runner surely passes its point.
    rivals = ("projector",) if case.part == "runner" and resources else ()
    ids = [
        f"{case.part}-{case.action}-{case.point.replace('.', '-').replace(':', '-')}-{n}"
        for n in range(case.operations)
    ]
    async with Clients(system.apis, seed=0, jobs=[job]) as clients, asyncio.TaskGroup() as group:
        for part in (case.part, *rivals):
            system.kill(part)
        armed = system.start(case.part, crash=case.point)
        if case.part != "runner":
            await system.ready(case.part)
        for operation_id in ids:
            group.create_task(clients.do(operation_id, job, Random(0)))
        await eventually(lambda: not armed.is_running, within=20)
        assert f"crash point {case.point.partition(':')[0]} is reached" in armed.output
        for part in (case.part, *rivals):
            system.start(part)
    await system.ready(case.part, *rivals)
    left = await gather_quiet(system.nats, within=20)
    marks = read_marks(system.folder)
    assert find_breaches(left, clients.told, marks) == []
    assert clients.problems == []
    assert system.complaints() == []
    calls = Counter(mark.operation for mark in marks if mark.what == "begin")
    last = left.operations[ids[-1]]
    assert [end_of(left.operations[one]) for one in ids] == [case.end] * case.operations
    assert (last.attempt, calls[last.id]) == (case.attempt, case.calls)


@pytest.mark.parametrize("point", SCHEDULE_POINTS)
async def test_a_moment_of_a_schedule(system: ChaosSystem, point: str) -> None:
    """The process that submits a moment ends there. Two others then find it due: one operation, recorded once."""
    system.revive()
    system.kill("api")
    due = datetime.now(UTC).replace(second=0, microsecond=0)  # within the last minute, and again in a year
    name = f"crash-{point.replace('.', '-')}"
    operation_id = occurrence_id(name, due)
    cron = f"{due.minute} {due.hour} {due.day} {due.month} *"
    definition = Schedule(action="chaos:quick", input=msgspec.Raw(b'{"number":1}'), cron=cron)
    before = due - timedelta(seconds=1)
    async with linked(system.nats) as link:
        changed = ScheduleChanged(act=ScheduleAct.SET, at=before, name=name, created_at=before, definition=definition)
        await ScheduleStream(link, lambda _tenant, key: key).change(name, changed, 0)
    armed = system.start("api", crash=point)
    await eventually(lambda: not armed.is_running, within=20)
    assert f"crash point {point} is reached" in armed.output
    system.add("api-2")
    try:
        for process in ("api", "api-2"):
            system.start(process)
        await system.ready("api", "api-2")

        async def is_recorded() -> bool:
            async with httpx.AsyncClient(trust_env=False) as http:
                found = (await http.get(f"{system.api}/schedules/{name}/history")).json()["value"]
            return [(one["outcome"], one["operationId"]) for one in found] == [("submitted", operation_id)]

        await eventually(is_recorded, within=20, poll=0.1)
        left = await gather_quiet(system.nats, within=20)
    finally:
        system.kill("api-2")
        system.names.remove("api-2")
    assert end_of(left.operations[operation_id]) == GOOD
    assert [one for one in left.operations if name in one] == [operation_id]
    assert breaches(left.evidence) == []
    calls = [mark for mark in read_marks(system.folder) if mark.operation == operation_id and mark.what == "begin"]
    assert len(calls) == 1
    assert system.complaints() == []


def test_every_point_has_its_case() -> None:
    """Each crash point has a case; that of bulk operations is in `tests/e2e/system/test_bulk_kills.py`, those of
    signals are in `tests/chaos/test_signal_points.py`, those of keys in `tests/e2e/system/test_canary.py`."""
    elsewhere = {
        *SCHEDULE_POINTS,
        CrashPoint.API_ITEM_DONE,
        CrashPoint.API_KEY_MADE,
        CrashPoint.API_ERASURE_RECORDED,
        CrashPoint.API_SIGNALED,
        CrashPoint.PROJECTOR_WOKEN,
    }
    assert {case.point.partition(":")[0] for case in CASES} | elsewhere == set(CrashPoint)
