"""`python -m tests.chaos`, or `make chaos SECONDS=600 SEED=7 FSYNC_US=2000`: a long run that prints what it does."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import click

from bench.harness.slow_disk import check_tracer
from tests.chaos.driver import Chaos


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds of disturbances.")
@click.option("--seed", type=int, help="Seed of an earlier run, to repeat it.  [default: a new one]")
@click.option(
    "--fsync-us",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Microseconds that each fsync of the broker takes longer, as on a slow disk; takes strace.",
)
def main(seconds: float, seed: int | None, fsync_us: int) -> None:
    """Run hundreds of operations while every part of the system is killed, stopped, cut off and crashed."""
    check_tracer(fsync_us)
    seed = secrets.randbits(32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="opstream-chaos-"))
    report = asyncio.run(Chaos(folder, seed=seed, seconds=seconds, fsync_us=fsync_us).run())
    click.echo(report.text())
    if report.breaches:
        again = f"make chaos SEED={seed}" + (f" FSYNC_US={fsync_us}" if fsync_us else "")
        sys.exit(f"invariants are broken; the data is in {folder}; repeat with: {again}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
