"""The order in which workers take the files of tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdist.remote import Producer

from tests.support.session.schedule import LONG, WAITING, FileSchedule

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
QUICK = tuple(f"tests/unit/test_{number}.py" for number in range(6))


SOME = (*WAITING[:3], *LONG[:3], *QUICK)


class Worker:
    """A worker that runs what it gets, a test at a time, and knows the next one before it runs one."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.pending: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.pending += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def may_run(self) -> bool:
        return len(self.pending) > 1 or (self.shutting_down and bool(self.pending))


def started(files: dict[str, int], count: int) -> tuple[FileSchedule, list[Worker], list[str]]:
    """A schedule that has handed out the first files; each file has a number of tests."""
    workers = [Worker(f"gw{number}") for number in range(count)]
    tests = [f"{file}::test_{number}" for file, size in files.items() for number in range(size)]
    config: Any = SimpleNamespace(
        getvalue=lambda _name: [f"{count}*popen"], option=SimpleNamespace(loadscopereorder=True)
    )
    schedule = FileSchedule(config, Producer("test", enabled=False))
    given: list[Any] = list(workers)
    for worker in given:
        schedule.add_node(worker)
        schedule.add_node_collection(worker, tests)
    schedule.schedule()
    return schedule, workers, tests


def file_of(test: str) -> str:
    return test.partition("::")[0]


def run(schedule: FileSchedule, workers: list[Worker], tests: list[str], data: st.DataObject) -> list[str]:
    """Run everything in any order that the workers may have; return what ran, and check what waited."""
    done: list[str] = []
    while running := [worker for worker in workers if worker.may_run]:
        waiting = {file_of(tests[worker.pending[0]]) for worker in running} & set(WAITING)
        assert len(waiting) <= 1 or schedule._waiter is None
        worker: Any = data.draw(st.sampled_from(running))
        index = worker.pending.pop(0)
        done.append(tests[index])
        schedule.mark_test_complete(worker, index)
    return done


@given(
    sizes=st.dictionaries(st.sampled_from(SOME), st.integers(1, 5), min_size=1),
    count=st.integers(1, 4),
    data=st.data(),
)
def test_every_test_runs_once(sizes: dict[str, int], count: int, data: st.DataObject) -> None:
    """However long each test takes, whatever was selected, and with any number of workers."""
    schedule, workers, tests = started(sizes, count)
    assert sorted(run(schedule, workers, tests, data)) == sorted(tests)


@given(data=st.data())
def test_files_that_wait_have_a_worker_of_their_own(data: st.DataObject) -> None:
    """No two of them run beside each other, and the other workers take all the rest."""
    schedule, workers, tests = started(dict.fromkeys(SOME, 2), 4)
    assert schedule._waiter is workers[0]  # so `run` checks it
    assert sorted(run(schedule, workers, tests, data)) == sorted(tests)


@given(data=st.data())
def test_a_worker_that_dies(data: st.DataObject) -> None:
    """The others run what the worker of files that wait has left."""
    schedule, workers, tests = started(dict.fromkeys(SOME, 2), 4)
    dead: Any = workers.pop(0)
    crashed = schedule.remove_node(dead)
    assert crashed == f"{WAITING[0]}::test_0"
    assert sorted(run(schedule, workers, tests, data)) == sorted(tests)


@given(size=st.integers(2, 6), data=st.data())
def test_the_last_worker_dies(size: int, data: st.DataObject) -> None:
    """The worker that is started in its place runs what is left, also if that is the single test that failed."""
    schedule, workers, tests = started({QUICK[0]: size}, 1)
    done = data.draw(st.integers(0, size - 1))
    dead: Any = workers.pop()
    for _ in range(done):
        schedule.mark_test_complete(dead, dead.pending.pop(0))
    assert schedule.remove_node(dead) == tests[done]
    successor: Any = Worker("gw1")
    schedule.add_node(successor)
    schedule.add_node_collection(successor, tests)
    schedule.schedule()
    assert run(schedule, [successor], tests, data) == tests[done:]


def test_the_longest_begin_first() -> None:
    """One worker begins with a file that waits, the others with the longest, whatever the number of their tests."""
    _, workers, tests = started({QUICK[0]: 9, LONG[1]: 3, QUICK[1]: 8, WAITING[3]: 3, LONG[0]: 3, WAITING[1]: 3}, 3)
    assert [file_of(tests[worker.pending[0]]) for worker in workers] == [WAITING[1], LONG[0], LONG[1]]


def test_the_named_files_exist() -> None:
    """A file that was renamed keeps its place."""
    assert [file for file in (*WAITING, *LONG) if not (ROOT / file).is_file()] == []
    assert len({*WAITING, *LONG}) == len(WAITING) + len(LONG)
