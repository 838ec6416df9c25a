"""Signals and crashes: a process ends anywhere between a signal and its wait, and the wait has it, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any, Final

import httpx
import pytest

from opstream_journal.runtime.crash_points import CrashPoint
from opstream_schemas.events import Signaled
from tests.support.chaos.checks import end_of
from tests.support.chaos.jobs import GOOD
from tests.support.chaos.state import gather_quiet
from tests.support.chaos.system import ChaosSystem
from tests.support.journal.journals import linked, opened
from tests.support.system.invariants import breaches
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

SENT: Final = "Tue, 24 Nov 2026 08:00:00 GMT"
CASES: Final = [
    ("api", CrashPoint.API_SIGNALED),
    ("api", f"{CrashPoint.JOURNAL_PUBLISHES}:2"),
    ("api", f"{CrashPoint.JOURNAL_STORED}:2"),
    ("api", f"{CrashPoint.API_SIGNALED}:2"),
    ("projector", CrashPoint.PROJECTOR_WOKEN),
    ("projector", f"{CrashPoint.PROJECTOR_WOKEN}:2"),
    ("runner", CrashPoint.RUNNER_WAITING),
    ("runner", f"{CrashPoint.RUNNER_WAITING}:2"),
    ("runner", CrashPoint.RUNNER_WAKE_ARMED),
    ("runner", f"{CrashPoint.RUNNER_STARTED}:2"),
    ("runner", f"{CrashPoint.RUNNER_HANDLED}:2"),
    ("runner", f"{CrashPoint.RUNNER_HANDLED}:3"),
]
_numbers = count(1)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosSystem]:
    """A system with one process of each service."""
    with ExitStack() as stack:
        system = ChaosSystem(tmp_path_factory.mktemp("signals"), stack)
        system.begin()
        yield system


async def post(system: ChaosSystem, path: str, body: Any, wanted: set[int], headers: dict[str, str]) -> httpx.Response:
    """Send a request again and again until it is answered as it should."""

    async def answered() -> httpx.Response | None:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
                answer = await http.post(f"{system.api}{path}", json=body, headers=headers)
        except httpx.HTTPError:
            return None
        assert answer.status_code in wanted or answer.status_code >= 500, answer.text
        return answer if answer.status_code in wanted else None

    found = await eventually(answered, within=30, poll=0.05)
    assert isinstance(found, httpx.Response)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Send before and in the wait in turns, or both ways at each point, which takes ten minutes."""
    if "early" in metafunc.fixturenames:
        every = metafunc.config.getoption("all_signals")
        found = [
            pytest.param(part, point, early, id=f"{part}-{point}-{'before' if early else 'after'}")
            for number, (part, point) in enumerate(CASES)
            for early in (False, True)
            if every or early == bool(number % 2)
        ]
        metafunc.parametrize(("part", "point", "early"), found)


async def test_a_signal(system: ChaosSystem, part: str, point: str, early: bool) -> None:
    """Sent before its wait or in it, and repeated by a sender that got no answer: each wait returns its own, once."""
    system.revive()
    operation_id = f"ask-{next(_numbers)}"
    system.kill(part)
    armed = system.start(part, crash=point)
    if part != "runner":
        await system.ready(part)

    async def watch() -> None:
        await eventually(lambda: not armed.is_running, within=30)
        system.start(part)

    async def work() -> None:
        await post(system, "/chaos:asking", {"number": 1}, {202}, {"Operation-Id": operation_id})
        for number in (1, 2):
            if not early:
                await waits_for(system, operation_id, f"answer-{number}")
            headers = {"Repeatability-Request-ID": f"{operation_id}-{number}", "Repeatability-First-Sent": SENT}
            path = f"/status/{operation_id}:signal/answer-{number}"
            answer = await post(system, path, number * 10, {200}, headers)
            assert answer.headers["Repeatability-Result"] == "accepted"

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(work())
    await system.ready(part)
    left = await gather_quiet(system.nats, within=30)
    ended = left.operations[operation_id]
    assert end_of(ended) == GOOD
    async with linked(system.nats) as link:
        journal = await opened(link)
        events = await journal.events(operation_id)
    sent = [bytes(one.data.payload) for one in events if isinstance(one.data, Signaled)]
    assert sent == [b"10", b"20"]
    assert b'"answers":[10,20]' in events[-1].stored
    assert breaches(left.evidence) == []
    assert system.complaints() == []


async def waits_for(system: ChaosSystem, operation_id: str, name: str) -> None:
    """Wait until the status says that a signal is waited for."""

    async def is_awaited() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
                monitor = (await http.get(f"{system.api}/status/{operation_id}")).json()
        except (httpx.HTTPError, ValueError):
            return False
        signal = monitor.get("blockedBy", {}).get("signal", {})
        return bool(signal.get("name") == name)

    await eventually(is_awaited, within=30, poll=0.05)
