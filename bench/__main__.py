"""`python -m bench`: reads options, measures, prints tables. Under a minute; with `--growth` a quarter of an hour."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from bench.measure import GROWTH, Plan, Point, measure
from bench.report import Machine, machine, machine_lines, result_lines
from bench.system import BenchFailed
from opstream.console import Failure


class _Written(msgspec.Struct):
    machine: Machine
    plan: Plan
    points: list[Point]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here, too.")
def main(file: Path | None, **given: Any) -> None:  # noqa: ANN401 - the options above, named as in `Plan`
    """Measure opstream beside the floor that it stands on, with real processes and a broker that syncs every write.

    The floor: a raw nats-py client that makes the same three durable publishes and one view write for each operation.
    opstream: broker, api, runner and projector as in production, a no-op action, submitted and polled over HTTP. Other
    work on the machine falsifies everything but the shares, so look at the load that is printed first.
    """
    plan = Plan(**given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # an exception, so that everything is cleaned up
    found = machine()
    for line in machine_lines(found):
        _say(line)
    began = time.monotonic()
    try:
        points = measure(plan, lambda text: _say(f"{time.monotonic() - began:6.1f} s  {text}"))
    except BenchFailed as error:
        raise Failure(str(error)) from error
    for line in result_lines(plan, points):
        _say(line)
    if file is not None:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(_Written(found, plan, points)), indent=2) + b"\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(prog_name="python -m bench")
