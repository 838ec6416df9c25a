"""A fixed piece of work on every core, and how long it took: how free the machine is at this moment.

The machine is shared, and becomes slower and faster by a third within minutes. A run is compared with others only if
the work just before it took about as long as theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_STEPS: Final = 1_500_000


def calibrate() -> float:
    """Do the work in processes of its own; return its milliseconds."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _work() -> None:
    total = 0
    for number in range(_STEPS):
        total += number


def main() -> None:
    """Work on each core at once, and print the milliseconds."""
    began = time.perf_counter()
    children = []
    for _ in range(len(os.sched_getaffinity(0)) - 1):
        if not (child := os.fork()):
            _work()
            os._exit(0)
        children.append(child)
    _work()
    for child in children:
        os.waitpid(child, 0)
    sys.stdout.write(f"{(time.perf_counter() - began) * 1000:.1f}\n")


if __name__ == "__main__":
    main()
