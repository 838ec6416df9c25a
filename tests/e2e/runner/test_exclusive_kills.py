"""Two real runners, exclusive operations, and SIGKILL for the runner of the lock's owner: one at a time, none is
stuck."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.runner.desk_actions import Mark, read_marks, write_module
from tests.support.system.services import System

pytestmark = pytest.mark.e2e

DESKS: Final = ("1", "2")
EACH: Final = 12
KILLS: Final = 4
SECONDS: Final = 0.15


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the processes."""
    return tmp_path_factory.mktemp("desks")


@pytest.fixture
def system(folder: Path) -> Iterator[System]:
    """A running system."""
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder), replicas=2)
        system.begin()
        yield system


def unfinished(marks: list[Mark]) -> list[Mark]:
    """Attempts that have started and not ended."""
    ended = {(mark.operation, mark.attempt, mark.pid) for mark in marks if mark.what == "end"}
    begun = [mark for mark in marks if mark.what == "begin"]
    return [mark for mark in begun if (mark.operation, mark.attempt, mark.pid) not in ended]


def kill_an_owner(system: System, folder: Path) -> tuple[int, float]:
    """SIGKILL a runner in the middle of an attempt, and restart it. Return the killed pid, and when it had ended."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        runners = {system.processes[name].pid: name for name in ("runner", "runner-2")}
        at_work = [mark for mark in unfinished(read_marks(folder)) if mark.pid in runners]
        if at_work:
            pid = at_work[-1].pid
            system.kill(runners[pid])
            gone = time.monotonic()
            system.start(runners[pid])
            return pid, gone
    raise AssertionError("no attempt runs")


def overlaps(marks: list[Mark], gone: dict[int, float]) -> list[str]:
    """Attempts that started while one of another operation was at the same desk."""
    ends = {(m.operation, m.attempt, m.pid): m.at for m in marks if m.what == "end"}
    begun = [mark for mark in marks if mark.what == "begin"]
    found = []
    for one in begun:
        end = ends.get((one.operation, one.attempt, one.pid), gone.get(one.pid, float("inf")))
        found += [
            f"{other.operation} began during attempt {one.attempt} of {one.operation}"
            for other in begun
            if other.desk == one.desk and other.operation != one.operation and one.at <= other.at < end
        ]
    return found


def test_killed_owners_are_followed_one_by_one(system: System, folder: Path, http: httpx.Client) -> None:
    """A killed attempt is followed by the next one of its operation, and then by the waiters; all succeed."""
    names = [f"op-{number}-{desk}" for number in range(EACH) for desk in DESKS]
    for name in names:
        answer = http.post(
            f"{system.api}/desk/{name[-1]}:use", json={"seconds": SECONDS}, headers={"Operation-Id": name}
        )
        assert answer.status_code == 202
    gone = dict(kill_an_owner(system, folder) for _ in range(KILLS))
    ended = {
        name: http.get(f"{system.api}/status/{name}", headers={"Prefer": "wait=60"}, timeout=70).json()
        for name in names
    }

    assert {one["status"] for one in ended.values()} == {"Succeeded"}
    marks = read_marks(folder)
    assert overlaps(marks, gone) == []
    assert len({(mark.operation, mark.attempt) for mark in unfinished(marks)}) <= KILLS * len(DESKS)
    assert sum(one["attempt"] - 1 for one in ended.values()) >= KILLS
    for desk in DESKS:
        order = list(dict.fromkeys(mark.operation for mark in marks if mark.desk == desk))
        waited = order[2:]  # the first ones found the desk free, on either runner
        assert waited == sorted(waited, key=lambda name: int(name.split("-")[1]))
    assert system.complaints() == []
