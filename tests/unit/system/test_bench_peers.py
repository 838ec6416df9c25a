"""The arithmetic and the tables of the comparison with peers, and what it says if something is not installed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.harness.slow_disk import slowed
from bench.peers.benchmark import PeerFigures, PeerRun, PeersFigures, PeersPlan, failures, make_run
from bench.peers.catalogue import DEFAULT, PEERS, needs_of
from bench.peers.comparison import DOUBTFUL, NOTHING, comparable, peers_lines, spread, usual_calibration
from bench.peers.installation import CELERY, ENVIRONMENTS, RESTATE, SAQ, STRACE, Installation
from bench.peers.probe import MEASURED, Mode, ProbeResult
from bench.peers.process_tree import ProcessTimes, label_of, parse_pss, parse_stat, tree
from opstream.terminal.console import CommandError

pytestmark = pytest.mark.unit

PEERS_FOLDER = Path(__file__).resolve().parents[3] / "bench" / "peers"
PLAN = PeersPlan(peers=("a",), rounds=2, operations=10, samples=5, clients=4, fsync_us=2000)


def run(number: int, calibration: float, rate: float) -> PeerRun:
    """A run of two processes."""
    return PeerRun(
        round=number,
        calibration=calibration,
        rate=rate,
        submit_rate=0.0,
        submit_p50=1.0,
        submit_p99=2.0,
        total_p50=3.0,
        total_p99=4.0,
        polls=1.5,
        client_cpu=0.5,
        cpu={"server": 1.25, "worker": 0.5},
    )


def figures(name: str, *runs: PeerRun) -> PeerFigures:
    """The same runs in each mode."""
    weighed = [{"server": 10 << 20, "worker": 6 << 20}]
    return PeerFigures(
        peer=name, about="made up", runs={mode: [*runs] for mode in MEASURED}, started=weighed, loaded=weighed
    )


def test_a_stat_whose_name_has_brackets() -> None:
    """The parent, and the processor time of the process and its ended children, are found behind any name."""
    fields = "S 7 1 1 0 -1 4194560 500 0 0 0 120 30 40 10 20 0 1 0 9999 0 0"
    assert parse_stat(f"42 (a) b (c)) {fields}") == ProcessTimes(7, 2.0)


def test_pss_of_a_rollup() -> None:
    """Only the line of the proportional size counts."""
    assert parse_pss("Rss:  900 kB\nPss:  300 kB\nPss_Anon:  200 kB\n") == 300 * 1024
    assert parse_pss("") == 0


def test_a_tree_has_all_descendants() -> None:
    """Children of children belong to it, others do not; a root that has ended has no tree."""
    times = {pid: ProcessTimes(parent, 0.0) for pid, parent in {2: 1, 3: 2, 4: 3, 5: 2, 6: 1}.items()}
    assert sorted(tree(times, 2)) == [2, 3, 4, 5]
    assert tree(times, 99) == []


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/bin/python", "-P", "-m", "opstream", "api", "--port", "1"], "api"),
        (["/bin/python", "-m", "bench.peers.client", "-x"], "bench.peers.client"),
        (["nats-server", "--config", "x"], "nats-server"),
        (["/venv/bin/python3.11", "/venv/bin/celery", "worker"], "celery"),
        (["python", "-c", "spawn()"], "python"),
        ([], "ended"),
    ],
)
def test_names_of_descendants(command: list[str], name: str) -> None:
    """A process is named by the command or the program that it runs."""
    assert label_of(command) == name


def test_figures_of_a_run() -> None:
    """Rates are per second, times in milliseconds, and both of one operation where the table says so."""
    result = ProbeResult(
        operations=4, seconds=2.0, submit_seconds=0.5, polls=6, cpu=0.02, submits=[0.001, 0.003], totals=[]
    )
    made = make_run(3, 70.0, result, {"server": 1.0})
    assert (made.rate, made.submit_rate, made.polls, made.client_cpu) == (2.0, 8.0, 1.5, pytest.approx(5.0))
    assert (made.submit_p50, made.total_p50) == (pytest.approx(2.0), 0.0)


def test_spread() -> None:
    """The median with the least and the most; of one figure itself; of none a sign for it."""
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"
    assert spread([1234.4], 0) == "1,234"
    assert spread([], 0) == NOTHING


def test_runs_of_another_machine_are_left_out() -> None:
    """A run counts if the work before it took at most 15 % more or less than usual."""
    runs = [run(1, 80.0, 1), run(2, 92.0, 2), run(3, 93.0, 3), run(4, 68.0, 4), run(5, 67.0, 5)]
    assert [one.round for one in comparable(runs, 80.0)] == [1, 2, 4]
    found = PeersFigures(plan=PLAN, peers=[figures("a", *runs)])
    assert usual_calibration(found) == 80.0
    assert usual_calibration(PeersFigures(plan=PLAN, peers=[])) == 0.0


def test_the_table() -> None:
    """Each peer has a column and a row for each process; a figure without a run that counts is marked; a failure is
    named."""
    quiet, busy = figures("quiet", *(run(n, 70.0, 100.0 + n) for n in range(5))), figures("busy", run(1, 99.0, 50.0))
    busy.failures = ["round 2: the server ended"]
    found = PeersFigures(plan=PLAN, peers=[quiet, busy])
    lines = list(peers_lines(found))
    assert "|  | quiet | busy |" in lines
    assert f"| burst, operations/s | 102 (100-104) | 50{DOUBTFUL} |" in lines
    memory = next(line for line in lines if line.startswith("| memory after start"))
    assert memory.split(" | ")[1:] == ["16", "16 |"]
    assert "| runs that count, of all | 15 of 15 | 0 of 3 |" in lines
    assert any(line.startswith("| quiet: worker | 0.50 (0.50-0.50) |") for line in lines)
    assert "FAILED busy, round 2: the server ended" in lines
    assert failures(found) == ["busy: round 2: the server ended"]
    assert any("each fsync takes 2,000 us longer" in line for line in lines)
    assert list(peers_lines(None)) == []


def test_a_fast_disk_needs_no_strace() -> None:
    """Without a delay the command stays as it is; with one the server is the process that is started."""
    assert slowed(["server", "-x"], 0) == ["server", "-x"]
    words = slowed(["server", "-x"], 2000)
    assert words[:2] == ["strace", "-D"]
    assert words[-2:] == ["server", "-x"]
    assert "inject=fsync,fdatasync:delay_enter=2000" in words


def test_what_is_missing_names_the_next_step(tmp_path: Path) -> None:
    """An empty folder lacks everything of its own; the error names `make peers`. opstream needs nothing."""
    empty = Installation(tmp_path / "none")
    empty.check(needs_of(("opstream", "opstream-up"), fsync_us=0))
    with pytest.raises(CommandError, match=r"virtual environment of saq.*'make peers'"):
        empty.check(needs_of(("opstream", "saq"), fsync_us=0))
    with pytest.raises(CommandError, match="Restate's server"):
        empty.check({RESTATE})
    assert needs_of(("saq", "celery"), fsync_us=1) == {SAQ, CELERY, STRACE}


def test_an_environment_of_other_requirements_is_missing(tmp_path: Path) -> None:
    """After a change of its lock, an environment counts as not installed."""
    installed = Installation(tmp_path)
    lock = (PEERS_FOLDER / "requirements" / "restate.txt").read_bytes()
    stamp = tmp_path / RESTATE / "installed.txt"
    stamp.parent.mkdir()
    stamp.write_bytes(lock)
    assert list(installed.missing({RESTATE})) == ["Restate's server"]
    stamp.write_bytes(lock.replace(b"==", b"==9", 1))
    assert list(installed.missing({RESTATE})) == ["the virtual environment of restate", "Restate's server"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_locks_pin_with_hashes(name: str) -> None:
    """Each requirement of a peer has one version and hashes, and no address; what is asked for is among them."""
    lock = (PEERS_FOLDER / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^[\w.-]+==\S+(?: ;[^\n\\]*)? \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^\w", lock, re.MULTILINE)) > 5
    assert "://" not in lock
    for wanted in (PEERS_FOLDER / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines():
        package, _, version = wanted.partition("==")
        assert re.search(rf"^{re.escape(package.partition('[')[0])}=={re.escape(version)}", lock, re.MULTILINE)


def test_the_server_of_restate_is_pinned() -> None:
    """The lock has the version that is asked for, a hash of each package, and no address of a registry."""
    wanted = json.loads((PEERS_FOLDER / "npm" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads((PEERS_FOLDER / "npm" / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    (name,) = wanted
    assert packages[f"node_modules/{name}"]["version"] == wanted[name]
    assert all("resolved" not in one and ("integrity" in one) == bool(path) for path, one in packages.items())


def test_the_usual_peers_are_known() -> None:
    """What runs without an option is in the catalogue."""
    assert set(DEFAULT) <= set(PEERS)
    assert Mode.FIRST not in MEASURED
