"""`python -m bench.children`: has thousands of children done, in real processes, and prints what that took."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.children.family import ACTIONS, CONCURRENCY, FamilyFigures, measure_family
from bench.harness.http_client import LoadFailed
from bench.harness.process_usage import BenchFailed
from bench.harness.system import BenchSystem

_MB = 1024 * 1024


def main() -> int:
    """Run the parents, and print a table. Return 1 if a child has not run once, or a result is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.children", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="children of each parent")
    parser.add_argument("--parallel", type=int, nargs="*", default=[0, 100], help="how many at once; 0 for all")
    options = parser.parse_args()
    print("| children | at once | s | children/s | last one begun after s | parent's end after the last child's, s | "
          "looks | memory, MB |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for max_parallel in options.parallel:
        with tempfile.TemporaryDirectory(prefix="opstream-children-") as folder, BenchSystem(Path(folder)) as system:
            try:
                system.start_broker()
                system.start_services(concurrency=CONCURRENCY, actions=ACTIONS)
                figures = measure_family(system, options.count, max_parallel, _say)
            except (BenchFailed, LoadFailed) as error:
                print(f"children: {error}", file=sys.stderr)
                return 1
        print(family_line(figures), flush=True)
    return 0


def family_line(figures: FamilyFigures) -> str:
    """Return a line of the table."""
    memory = ", ".join(f"{name} {size / _MB:.0f}" for name, size in figures.memory.items())
    return (
        f"| {figures.children:,} | {figures.max_parallel or 'all'} | {figures.seconds:.1f} | {figures.rate:.0f} | "
        f"{figures.begun:.1f} | {figures.after:.2f} | {figures.waits} | {memory} |"
    )


def _say(text: str) -> None:
    print(f"children: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
