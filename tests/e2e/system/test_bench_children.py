"""The measurement of many children, in its short form: `make children` has ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.children.__main__ import family_line
from bench.children.family import ACTIONS, CONCURRENCY, measure_family
from bench.harness.system import SERVICES, BenchSystem

pytestmark = pytest.mark.e2e

COUNT = 300


def test_each_child_runs_once(tmp_path: Path) -> None:
    """With a limit and without one the parent has each result in its place, and looks at them a few times."""
    with BenchSystem(tmp_path) as system:
        system.start_broker()
        system.start_services(concurrency=CONCURRENCY, actions=ACTIONS)
        for max_parallel in (0, 100):
            figures = measure_family(system, COUNT, max_parallel)
            assert figures.memory.keys() == set(SERVICES)
            assert 0 < figures.waits <= 30
            assert 0 < figures.begun <= figures.seconds
            assert family_line(figures).startswith(f"| {COUNT} | {max_parallel or 'all'} | ")
