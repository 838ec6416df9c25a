"""`python -m tests.chaos`, or `make chaos SECONDS=600 SEED=7`: a long run that prints what it does."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import click

from tests.chaos.driver import Chaos


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds of disturbances.")
@click.option("--seed", type=int, help="Seed of an earlier run, to repeat it.  [default: a new one]")
def main(seconds: float, seed: int | None) -> None:
    """Run hundreds of operations while every part of the system is killed, stopped, cut off and crashed."""
    seed = secrets.randbits(32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="opstream-chaos-"))
    report = asyncio.run(Chaos(folder, seed=seed, seconds=seconds).run())
    click.echo(report.text())
    if report.breaches:
        sys.exit(f"invariants are broken; the data is in {folder}; repeat with: make chaos SEED={seed}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
