"""`python -m bench`: reads options, measures, prints tables. Takes ten minutes, with `--growth` 25.

The part `peers` needs more than opstream (`make peers`), so it runs only if it is asked for.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from bench.harness.http_client import LoadFailed
from bench.harness.process_usage import BenchFailed
from bench.harness.progress import Progress
from bench.history import replay
from bench.history.archive import ARCHIVE, ArchiveFigures, measure_archive
from bench.history.archive_report import archive_lines
from bench.history.rebuild import OPERATIONS, REBUILD, RebuildFigures, measure_rebuild, rebuild_lines
from bench.peers import catalogue
from bench.peers.benchmark import PART as PEERS
from bench.peers.benchmark import PeersFigures, PeersPlan, failures, measure_peers
from bench.peers.comparison import peers_lines
from bench.reading import benchmark as readings
from bench.reading.benchmark import ReadingFigures
from bench.reading.report import reading_lines
from bench.releases.comparison import RELEASE, ReleaseFigures, compare_release
from bench.releases.report import release_lines
from bench.releases.sources import BEFORE, LAST
from bench.runners import benchmark as runners
from bench.runners.benchmark import RunnerFigures
from bench.runners.report import runner_lines
from bench.scale import benchmark as scales
from bench.scale.benchmark import ScaleFigures, ScalePlan, scale_lines
from bench.switches.comparison import SwitchFigures, SwitchPlan, compare_switches
from bench.switches.report import switch_lines
from bench.switches.switched_system import SWITCHES
from bench.throughput.benchmark import GROWTH, JournalPoint, ThroughputPlan, measure_throughput
from bench.throughput.report import BenchMachine, machine_lines, result_lines, this_machine
from opstream.terminal.console import CommandError

THROUGHPUT: Final = "throughput"
USUAL: Final = (THROUGHPUT, RELEASE, *readings.PARTS, *runners.PARTS, *replay.PARTS, ARCHIVE, REBUILD)
PARTS: Final = (*USUAL, *scales.PARTS, PEERS)

_FILES: Final = 8_192


class _Written(msgspec.Struct):
    machine: BenchMachine
    plan: ThroughputPlan
    points: list[JournalPoint]
    switches: SwitchFigures | None
    release: ReleaseFigures | None
    readings: ReadingFigures
    runners: RunnerFigures
    archive: ArchiveFigures | None
    replays: list[replay.ReplayFigures]
    rebuilds: list[RebuildFigures]
    scales: ScaleFigures
    peers: PeersFigures | None


def _check_switches(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    combinations = tuple(tuple(text.split(",")) for text in value)
    for name in {name for one in combinations for name in one}:
        if name not in SWITCHES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(SWITCHES)}", ctx, param)
    return combinations


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--only",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help=f"Only this part; may be given more than once.  [default: all but {', '.join((*scales.PARTS, PEERS))}]",
)
@click.option("--operations", type=click.IntRange(min=1), default=2_500, show_default=True, help="In each round.")
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="HTTP clients; as many operations are in flight on the floor and in the runner.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Operations that are timed one at a time, in each round.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=4, show_default=True, help="Floor and opstream in turn.")
@click.option(
    "--growth/--no-growth",
    "is_growing",
    default=False,
    show_default=True,
    help=f"Fill the journal to {GROWTH[0]:,} and to {GROWTH[1]:,} operations, and do all rounds at each size.",
)
@click.option(
    "--against",
    type=click.Choice(tuple(BEFORE)),
    default=LAST,
    show_default=True,
    help="The earlier version, for the part release.",
)
@click.option(
    "--turns",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Of the earlier version and of this one, for the part release; of each system, for --with.",
)
@click.option(
    "--with",
    "combinations",
    metavar="NAMES",
    multiple=True,
    callback=_check_switches,
    help=f"What is switched on, of {','.join(SWITCHES)}: the part throughput then compares a system that has it with "
    "one that has nothing of it, in turns. May be given more than once.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=10),
    default=100_000,
    show_default=True,
    help="Operations in the queue, for the parts drain and backlog.",
)
@click.option(
    "--kept",
    type=click.IntRange(min=1_000),
    default=100_000,
    show_default=True,
    help="Operations in the journal, for the parts archive and long-journal.",
)
@click.option(
    "--rebuilt",
    type=click.IntRange(min=1),
    default=OPERATIONS,
    show_default=True,
    help="Operations in the journal, for the part rebuild.",
)
@click.option(
    "--copies",
    type=click.IntRange(min=1, max=5),
    multiple=True,
    default=(1, 3),
    show_default=True,
    help="Copies of each event and servers, for the parts floors and cluster.",
)
@click.option(
    "--delay",
    "delays_ms",
    type=click.FloatRange(min=0),
    multiple=True,
    default=(0.0, 2.0),
    show_default=True,
    help="Milliseconds that each sync of a server takes longer, for the parts floors and cluster.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps the journal of the part long-journal for the next time.  [default: a temporary one]",
)
@click.option(
    "--peer",
    "peers",
    type=click.Choice(list(catalogue.PEERS)),
    multiple=True,
    help=f"For the part peers; may be given more than once.  [default: {', '.join(catalogue.DEFAULT)}]",
)
@click.option(
    "--fsync-us",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Microseconds that each fsync of a peer's server takes longer, for the part peers.",
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here, too.")
def main(
    *,
    file: Path | None,
    parts: tuple[str, ...],
    against: str,
    turns: int,
    combinations: tuple[tuple[str, ...], ...],
    waiting: int,
    kept: int,
    rebuilt: int,
    copies: tuple[int, ...],
    delays_ms: tuple[float, ...],
    folder: Path | None,
    peers: tuple[str, ...],
    fsync_us: int,
    **given: Any,  # noqa: ANN401 - the others as in `ThroughputPlan`
) -> None:
    """Measure opstream with real processes and a broker that syncs every write.

    \b
    throughput  operations beside the floor that they stand on
    release     the same operations in turns by the last release, and which is better
    status      what reading a status costs
    wait        1,000 clients with Prefer: wait
    stream      500 readers of Server-Sent Events
    validation  what a large input costs
    recovery    from a runner's SIGKILL to the next attempts, beside the lease
    drain       a queue of 100,000 operations that a runner finds
    archive     disk and memory of a million operations, in the journal and in the archive
    replay      the whole history, printed and exported
    rebuild     opstream rebuild and verify, and a lost index, of 90,000 events
    floors      what streams carry, by disk, copies, streams and clients
    cluster     the whole of opstream on one server and on three
    long-journal
                a long journal beside an empty one
    backlog     submits while 100,000 requests wait
    peers       opstream beside SAQ, Celery and Restate, after 'make peers'

    The floor: a raw nats-py client that makes the same three durable publishes and one snapshot write an operation.
    opstream: broker, api, runner and projector as in production, a no-op action, submitted and polled over HTTP. Other
    work on the machine falsifies everything but the shares, so check the load average that is printed first.
    """
    plan = ThroughputPlan(**given)
    wanted = parts or USUAL
    delays = tuple(milliseconds / 1000 for milliseconds in delays_ms)
    scale_plan = ScalePlan(copies=copies, delays=delays, kept=kept, waiting=waiting, folder=folder)
    _raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # an exception, so that `finally` blocks run
    here = this_machine()
    for line in machine_lines(here):
        _say(line)
    began = time.monotonic()

    def say(text: str) -> None:
        _say(f"{time.monotonic() - began:6.1f} s  {text}")

    try:
        points = measure_throughput(plan, say) if THROUGHPUT in wanted and not combinations else []
        switched = _compare_switches(plan, combinations, turns, say) if THROUGHPUT in wanted and combinations else None
        compared = compare_release(against, clients=plan.clients, turns=turns, say=say) if RELEASE in wanted else None
        found = readings.measure_readings(wanted, say) if set(wanted) & set(readings.PARTS) else ReadingFigures()
        progress = Progress(say, sys.stdout, time.monotonic)
        tried = runners.measure_runners(wanted, waiting, progress)
        replayed = replay.measure_replay(wanted, progress)
        weighed = measure_archive(kept, progress) if ARCHIVE in wanted else None
        rebuilds = measure_rebuild(rebuilt, progress) if REBUILD in wanted else []
        scaled = scales.measure_scale(wanted, scale_plan, progress)
        beside = _measure_peers(plan, peers, fsync_us) if PEERS in wanted else None
    except (BenchFailed, LoadFailed) as error:
        raise CommandError(str(error)) from error
    weights = archive_lines(weighed) if weighed is not None else ()
    replays = replay.replay_lines(replayed)
    for line in (*result_lines(plan, points), *switch_lines(switched), *release_lines(compared)):
        _say(line)
    for line in (*reading_lines(found), *runner_lines(tried)):
        _say(line)
    for line in (*replays, *weights, *rebuild_lines(rebuilds), *scale_lines(scaled), *peers_lines(beside)):
        _say(line)
    if file is not None:
        written = _Written(
            here, plan, points, switched, compared, found, tried, weighed, replayed, rebuilds, scaled, beside
        )
        file.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    if beside is not None and failures(beside):
        raise CommandError("a peer failed; the lines above say how")


def _compare_switches(
    plan: ThroughputPlan, combinations: tuple[tuple[str, ...], ...], turns: int, say: Callable[[str], None]
) -> SwitchFigures:
    wanted = SwitchPlan(
        combinations=combinations,
        clients=plan.clients,
        operations=plan.operations,
        samples=plan.samples,
        turns=turns,
    )
    return compare_switches(wanted, say=say)


def _measure_peers(plan: ThroughputPlan, peers: tuple[str, ...], fsync_us: int) -> PeersFigures:
    """Measure the peers; progress goes to stderr, so that stdout has nothing but the tables."""
    began = time.monotonic()
    wanted = PeersPlan(
        peers=tuple(dict.fromkeys(peers)) or catalogue.DEFAULT,
        rounds=plan.rounds,
        operations=plan.operations,
        samples=plan.samples,
        clients=plan.clients,
        fsync_us=fsync_us,
    )
    return measure_peers(wanted, lambda text: click.echo(f"{time.monotonic() - began:6.1f} s  {text}", err=True))


def _raise_file_limit() -> None:
    """Raise the limit of open files, often 1,024, for the connections. Child processes inherit it."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, min(most, _FILES)), most))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(prog_name="python -m bench")
