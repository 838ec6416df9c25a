"""The comparison with an earlier version: its arithmetic, its words, and the sources it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.harness.process_usage import BenchFailed, process_usage
from bench.harness.table import MIB
from bench.releases import sources
from bench.releases.comparison import PROCESSES, ReleaseFigures, Turn
from bench.releases.report import release_lines
from bench.releases.sources import BEFORE, LAST, environment_of, unpack

pytestmark = pytest.mark.unit

TURN = Turn(rate=500.0, polls=2.0, alone=5.0, cpu=dict.fromkeys(PROCESSES, 0.5), rss=300 * MIB)


def lines(before: list[Turn], now: list[Turn]) -> dict[str, str]:
    """What the report says, by its first words: the ratio of a row of the table, or the verdict."""
    found = ReleaseFigures(version="0.2.0", clients=64, before=before, now=now)
    said = {}
    for line in map(str.strip, release_lines(found)):
        name, cells = (line.partition("  ")[0], line.split()) if "  " in line else (line.partition(": ")[0], [])
        said[name] = cells[-1] if cells else line.partition(": ")[2]
    return said


def test_the_ratio_is_the_median_of_neighbouring_turns() -> None:
    """A turn is divided by the one of the other version beside it, so that a slow minute counts for both."""
    rates = [(500.0, 600.0), (100.0, 120.0), (800.0, 400.0)]
    before = [msgspec.structs.replace(TURN, rate=rate) for rate, _ in rates]
    now = [msgspec.structs.replace(TURN, rate=rate) for _, rate in rates]
    assert lines(before, now)["operations/s"] == "1.20"


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [
        (700.0, "better than 0.2.0, 1.40 times"),
        (250.0, "WORSE than 0.2.0, 0.50 times"),
        (490.0, "as in 0.2.0 (less than 3% apart)"),
    ],
)
def test_more_operations_are_better(rate: float, verdict: str) -> None:
    """The report says whether this checkout is better, worse or the same, and leaves out what is noise."""
    assert lines([TURN], [msgspec.structs.replace(TURN, rate=rate)])["operations a second"] == verdict


def test_turns_that_do_not_agree_decide_nothing() -> None:
    """On a machine with other work a median may be far from 1 by chance: four of five turns have to be on its side."""
    now = [msgspec.structs.replace(TURN, alone=alone) for alone in (9.0, 6.0, 6.0, 4.0, 4.0)]
    assert lines([TURN] * 5, now)["one at a time"] == (
        "not decided (1.20 times, but only 3 of 5 turns agree): use more turns"
    )
    now[3] = msgspec.structs.replace(TURN, alone=6.0)
    assert lines([TURN] * 5, now)["one at a time"] == "WORSE than 0.2.0, 1.20 times"


def test_less_of_everything_else_is_better() -> None:
    """Latency, processor time and memory are better when there is less of them."""
    now = msgspec.structs.replace(TURN, alone=2.5, cpu=dict.fromkeys(PROCESSES, 1.0), rss=150 * MIB)
    found = lines([TURN], [now])
    assert found["one at a time"] == "better than 0.2.0, 0.50 times"
    assert found["processor time"] == "WORSE than 0.2.0, 2.00 times"
    assert found["memory"] == "better than 0.2.0, 0.50 times"


def test_without_a_comparison_nothing_is_printed() -> None:
    """The part that was not selected has no lines."""
    assert list(release_lines(None)) == []


def test_the_last_release_runs_from_its_own_sources(tmp_path: Path) -> None:
    """The unpacked release says that it is the last one, and imports its own packages."""
    environment = environment_of(unpack(LAST, tmp_path))
    asked = "import opstream, opstream_journal, sys; print(opstream.__version__, opstream_journal.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", asked],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    version, where = done.stdout.split()
    assert version == LAST
    assert Path(where).is_relative_to(tmp_path)


def test_a_shallow_checkout_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is not here is an error that says how to get it."""
    monkeypatch.setitem(BEFORE, LAST, "0" * 40)
    with pytest.raises(BenchFailed, match="git fetch --unshallow"):
        unpack(LAST, tmp_path)


def test_every_earlier_version_is_in_the_history() -> None:
    """Upgrades can be tried from each of them."""
    for commit in BEFORE.values():
        subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=sources.ROOT, check=True)


def test_processor_time_of_another_process() -> None:
    """The time is that of all of its threads, and a process that has ended is an error."""
    work = "import threading; t = threading.Thread(target=lambda: sum(range(10**6))); t.start(); t.join()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{work}; print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 0 < process_usage(child.pid).cpu < 60
        assert process_usage(child.pid).rss > MIB
        child.communicate(b"\n")
    with pytest.raises(BenchFailed, match="can't be read"):
        process_usage(child.pid)
