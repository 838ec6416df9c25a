"""The arithmetic of the benchmark, and the modules that it starts as processes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from bench.harness.progress import Progress
from bench.runners.drain import DrainSample, rate, time_when_done
from bench.runners.recovery import LostOperation, recovery_figures
from bench.scale.servers import SyncCounts, count_syncs

pytestmark = pytest.mark.unit

SAMPLES = (
    DrainSample(10.0, 0),
    DrainSample(11.0, 0),
    DrainSample(12.0, 40),
    DrainSample(13.0, 40),
    DrainSample(14.0, 100),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("count", "at"), [(0, 11.0), (10, 11.25), (40, 12.0), (70, 13.5), (100, 14.0)])
def test_crossing(count: float, at: float) -> None:
    """A count was reached between two samples in proportion; of several that have it, counts are left at the last one
    where nothing was done yet, and reached at the first."""
    assert time_when_done(SAMPLES, count) == at


def test_rate_leaves_out_what_was_before_the_first_operation() -> None:
    """Operations are divided by the time from the last sample with the first count to the first with the last one."""
    assert rate(SAMPLES, 0, 100) == pytest.approx(100 / 3)


def test_recovery_tells_the_lease_from_what_comes_after_it() -> None:
    """What was left of the lease and what came after it add up to the time to the next attempt."""
    lost = [
        LostOperation(seen=99.0, started=101.5, ended=101.75),
        LostOperation(seen=99.5, started=101.75, ended=102.0),
    ]
    found = recovery_figures(2.0, 100.0, lost)
    assert found.next.max == pytest.approx(1750)
    assert found.left.max == pytest.approx(1500)
    assert found.late.max == pytest.approx(500)
    assert found.share == pytest.approx(1.25 / 1.625)
    assert found.span == pytest.approx(0.25)
    assert found.ended == pytest.approx(2.0)


def test_progress_without_a_terminal() -> None:
    """Without a terminal there is one line for each tenth, and one at the end."""
    lines: list[str] = []
    stream = io.StringIO()
    progress = Progress(lines.append, stream, Clock())
    progress.begin("filling", 1_000)
    for done in (50, 100, 120, 350, 1_000):
        progress.show(done)
    progress.end()
    assert lines == [
        "filling: 100 of 1,000 operations",
        "filling: 350 of 1,000 operations",
        "filling: 1,000 of 1,000 operations",
    ]
    assert not stream.getvalue()


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line is written over and over, and only the end stays."""
    monkeypatch.setenv("TERM", "xterm")
    lines: list[str] = []
    stream = Terminal()
    clock = Clock()
    progress = Progress(lines.append, stream, clock)
    progress.begin("filling", 1_000)
    clock.now = 2.0
    progress.show(500)
    progress.end()
    assert lines == ["filling: 1,000 of 1,000 operations (500/s)"]
    assert stream.getvalue().count("\r\x1b[K") == 3
    assert "500 of 1,000 operations (250/s)" in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_syncs_in_the_output_of_strace() -> None:
    """A call that another thread interrupts counts once, and of the opened files those that sync each write."""
    trace = b"""\
71 openat(AT_FDCWD, "/s/obs/o.dat", O_WRONLY|O_CREAT|O_TRUNC|O_SYNC|O_CLOEXEC, 0640) = 9
71 openat(AT_FDCWD, "/s/msgs/1.blk", O_RDWR|O_CLOEXEC) = 10
71 fsync(10 <unfinished ...>
72 fdatasync(11) = 0
71 <... fsync resumed>) = 0
72 fsync(12) = 0 (DELAYED)
"""
    assert count_syncs(trace) == SyncCounts(syncs=3, opens=1)


def test_the_modules_that_run_as_processes() -> None:
    """Each module of the benchmark that a text names, for a child process or a runner, exists."""
    bench = Path(__file__).resolve().parents[3] / "bench"
    texts = [path.read_text(encoding="utf-8") for path in bench.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'"(bench(?:\.\w+)+)"', text)}
    assert len(named) > 5
    assert [
        name for name in sorted(named) if not bench.parent.joinpath(*name.split(".")).with_suffix(".py").exists()
    ] == []
