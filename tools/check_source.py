# ruff: noqa: INP001 - a script, in no package
"""House rules that no linter knows: modules stay small enough to hold in the head, and no work is left unfinished.

Called by `make check`; prints each breach as `file:line: what` and exits 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = (
    "schemas/opstream_schemas",
    "journal/opstream_journal",
    "services/api/opstream_api",
    "services/runner/opstream_runner",
    "services/projector/opstream_projector",
    "services/webhooks/opstream_webhooks",
    "opstream",
    "examples/bookshelf/bookshelf",
)
OTHERS: Final = ("tests", "bench", "tools")
MAX_LINES: Final = 300
UNFINISHED: Final = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


def breaches() -> Iterator[str]:
    """Every breach, ready to print."""
    for folder in (*PACKAGES, *OTHERS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == Path(__file__).name:
                continue  # it has to name the words
            name = path.relative_to(ROOT)
            lines = path.read_text(encoding="utf-8").splitlines()
            if folder in PACKAGES and len(lines) > MAX_LINES:
                yield f"{name}:{len(lines)}: over {MAX_LINES} lines; split it by concept"
            for number, line in enumerate(lines, start=1):
                if found := UNFINISHED.search(line):
                    yield f"{name}:{number}: {found[0]}: finish it, or file an issue"


def main() -> None:
    """Check all sources."""
    found = list(breaches())
    for one in found:
        sys.stdout.write(f"{one}\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
