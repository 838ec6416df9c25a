"""`python -m tests.disaster`, or `make disaster SCENARIO=full-disk TIMES=5`: long rounds that print what they do."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from tests.disaster.catalog import SCENARIOS
from tests.disaster.driver import play_round
from tests.disaster.report import breaches, table, write_json
from tests.disaster.stage import LONG, SHORT, RoundResult


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--scenario", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only this one; repeat it.")
@click.option("--times", type=click.IntRange(min=1), default=1, show_default=True, help="Rounds of each scenario.")
@click.option(
    "--strikes", type=click.IntRange(min=1), default=1, show_default=True, help="Disasters in a round that can repeat."
)
@click.option("--seed", type=int, help="Seed of an earlier run, to repeat it.  [default: a new one]")
@click.option("--short", is_flag=True, help="Play the short form that `make test` has.")
@click.option("--report", type=click.Path(path_type=Path), help="Write all rounds to this file, as JSON.")
@click.option("--list", "is_list", is_flag=True, help="Print the scenarios, and end.")
def main(
    scenario: tuple[str, ...],
    times: int,
    strikes: int,
    seed: int | None,
    short: bool,
    report: Path | None,
    is_list: bool,
) -> None:
    """Have disasters under load, recover as an operator does, and check that nothing is lost."""
    if is_list:
        for name, one in SCENARIOS.items():
            click.echo(f"{name:28}{one.summary()}")
        return
    seed = secrets.randbits(24) if seed is None else seed
    results: list[RoundResult] = []
    kept: list[str] = []
    for name in scenario or SCENARIOS:
        for number in range(times):
            click.echo(f"{name}, round {number + 1} of {times}, seed {seed + number}")
            folder = Path(tempfile.mkdtemp(prefix=f"opstream-disaster-{name}-"))
            size = msgspec.structs.replace(SHORT if short else LONG, strikes=strikes)
            results.append(
                asyncio.run(play_round(SCENARIOS[name](), folder, seed=seed + number, size=size, say=click.echo))
            )
            if results[-1].breaches:
                again = f"make disaster SCENARIO={name} SEED={seed + number}"
                kept.append(f"{name}: the data and the logs are in {folder}; repeat with: {again}")
            else:
                shutil.rmtree(folder)
            if report is not None:
                write_json(results, report)
    click.echo(table(results))
    click.echo(f"breaches: {len(breaches(results))}")
    for line in (*breaches(results), *kept):
        click.echo(line)
    sys.exit(1 if kept else 0)


if __name__ == "__main__":
    main()
