"""The part `peers`: rounds in which each peer is started alone, loaded, weighed and ended, one peer after the other."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.figures import percentiles
from bench.harness.process_usage import BenchFailed
from bench.harness.slow_disk import check_tracer
from bench.peers.calibration import calibrate
from bench.peers.catalogue import PEERS, needs_of
from bench.peers.installation import Installation
from bench.peers.probe import MEASURED, Mode, Probe, ProbeResult, Route
from bench.peers.running_peer import ROOT, RunningPeer

PART: Final = "peers"

_CLIENT: Final = "bench.peers.client"
_WARM_UP: Final = 256
_REST: Final = 1.0
"""Seconds of quiet before memory is read for the first time."""
_TAIL_OF_WORK: Final = 0.5
"""Seconds after a run in which a peer may still do what belongs to it; they count as its processor time."""
_PATIENCE: Final = 3_600.0

Say = Callable[[str], None]


class PeersPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    peers: tuple[str, ...]
    rounds: int
    operations: int
    """In each burst and each closed loop."""
    samples: int
    """One at a time."""
    clients: int
    fsync_us: int
    """Microseconds that each fsync of a server takes longer."""


class PeerRun(msgspec.Struct, frozen=True, kw_only=True):
    """One mode in one round."""

    round: int
    calibration: float
    """Milliseconds of the fixed work just before it."""
    rate: float
    """Operations a second, from the first submit until the last result was read."""
    submit_rate: float
    """Submits a second until the last one was accepted; 0 where they are not submitted together."""
    submit_p50: float
    """Milliseconds, as the following."""
    submit_p99: float
    total_p50: float
    """From submit to result; 0 in a burst, where results are read only at the end."""
    total_p99: float
    polls: float
    """For each operation."""
    client_cpu: float
    """Milliseconds of processor time for each operation."""
    cpu: dict[str, float]
    """The same, by process of the peer."""


class PeerFigures(msgspec.Struct, kw_only=True):
    """All that was found out about one peer."""

    peer: str
    about: str
    runs: dict[Mode, list[PeerRun]] = {}
    started: list[dict[str, int]] = []
    """Bytes (PSS) by process, in each round, when nothing but one operation had run."""
    loaded: list[dict[str, int]] = []
    """The same right after the runs; of each process the most of all modes."""
    failures: list[str] = []
    """Why a round is missing."""


class PeersFigures(msgspec.Struct, kw_only=True):
    """The figures of the part."""

    plan: PeersPlan
    peers: list[PeerFigures]


def measure_peers(plan: PeersPlan, say: Say) -> PeersFigures:
    """Measure everything that the plan asks for. A peer that fails in a round is left out of that round.

    Args:
        plan: what to measure.
        say: prints progress.

    Raises:
        CommandError: something is not installed, strace may not trace, or there is no free port.
    """
    installed = Installation.usual()
    installed.check(needs_of(plan.peers, fsync_us=plan.fsync_us))
    check_tracer(plan.fsync_us)
    found = [PeerFigures(peer=name, about=PEERS[name].about) for name in plan.peers]
    for number in range(1, plan.rounds + 1):
        for figures in found:
            what = f"round {number} of {plan.rounds}, {figures.peer}"
            try:
                _measure_round(plan, number, figures, installed, partial(_say_about, say, what))
            except BenchFailed as error:
                figures.failures.append(f"round {number}: {error}")
                say(f"{what} failed: {error}")
    return PeersFigures(plan=plan, peers=found)


def _say_about(say: Say, what: str, text: str) -> None:
    say(f"{what}: {text}")


def _measure_round(plan: PeersPlan, number: int, figures: PeerFigures, installed: Installation, say: Say) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="opstream-peers-") as folder,
        RunningPeer(Path(folder), installed, clients=plan.clients, fsync_us=plan.fsync_us) as running,
    ):
        say("starting")
        load = _PeerLoad(plan, number, running, PEERS[figures.peer].start(running))
        load.until_ready()
        time.sleep(_REST)
        figures.started.append(running.memory())
        load.warm_up()
        most: dict[str, int] = {}
        for mode in MEASURED:
            run, memory = load.run(mode)
            say(f"{mode}: {_summary(mode, run)}; calibration {run.calibration:.0f} ms")
            figures.runs.setdefault(mode, []).append(run)
            most = {name: max(size, most.get(name, 0)) for name, size in memory.items()}
        figures.loaded.append(most)


class _PeerLoad:
    """The loads on a running peer."""

    def __init__(self, plan: PeersPlan, number: int, running: RunningPeer, route: Route) -> None:
        self._plan = plan
        self._number = number
        self._running = running
        self._route = route

    def until_ready(self) -> None:
        """Return when an operation has succeeded."""
        self._probe(Mode.FIRST, 1, 1)

    def warm_up(self) -> None:
        """Run a closed loop briefly."""
        self._probe(Mode.CLOSED, _WARM_UP, self._plan.clients)

    def run(self, mode: Mode) -> tuple[PeerRun, dict[str, int]]:
        """Run a mode; return its figures and the memory right after it."""
        alone = mode is Mode.ALONE
        operations, clients = (self._plan.samples, 1) if alone else (self._plan.operations, self._plan.clients)
        calibration = calibrate()
        before: dict[str, float] = {}
        result = self._probe(mode, operations, clients, lambda: before.update(self._running.cpu()))
        memory = self._running.memory()
        time.sleep(_TAIL_OF_WORK)
        after = self._running.cpu()
        cpu = {name: (used - before.get(name, 0.0)) * 1000 / operations for name, used in after.items()}
        return make_run(self._number, calibration, result, cpu), memory

    def _probe(self, mode: Mode, operations: int, clients: int, begin: Callable[[], object] = int) -> ProbeResult:
        """Run the client.

        Args:
            mode: of the load.
            operations: how many.
            clients: that many at once.
            begin: called just before the load begins.
        """
        probe = Probe(route=self._route, mode=mode, operations=operations, clients=clients)
        command = [sys.executable, "-m", _CLIENT, msgspec.json.encode(probe).decode()]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        ) as client:
            try:
                assert client.stdout is not None
                if client.stdout.readline():  # it is ready
                    begin()
                out, err = client.communicate(b"begin\n", timeout=_PATIENCE)
            finally:
                client.kill()
        self._running.check_processes()
        if client.returncode:
            raise BenchFailed(f"{mode}: {err.decode(errors='replace').strip()[-1_000:]}")
        return msgspec.json.decode(out, type=ProbeResult)


def make_run(number: int, calibration: float, result: ProbeResult, cpu: dict[str, float]) -> PeerRun:
    """The figures of one run.

    Args:
        number: of the round.
        calibration: milliseconds.
        result: what the client measured.
        cpu: milliseconds for each operation, by process.
    """
    submit = percentiles(result.submits)
    total = percentiles(result.totals) if result.totals else None
    return PeerRun(
        round=number,
        calibration=calibration,
        rate=result.operations / result.seconds,
        submit_rate=result.operations / result.submit_seconds if result.submit_seconds else 0.0,
        submit_p50=submit.p50,
        submit_p99=submit.p99,
        total_p50=total.p50 if total else 0.0,
        total_p99=total.p99 if total else 0.0,
        polls=result.polls / result.operations,
        client_cpu=result.cpu * 1000 / result.operations,
        cpu=cpu,
    )


def failures(found: PeersFigures) -> Sequence[str]:
    """What failed, by peer."""
    return [f"{one.peer}: {failure}" for one in found.peers for failure in one.failures]


def _summary(mode: Mode, run: PeerRun) -> str:
    if mode is Mode.ALONE:
        return f"submit to result p50 {run.total_p50:.2f} ms"
    return f"{run.rate:,.0f} operations/s"
