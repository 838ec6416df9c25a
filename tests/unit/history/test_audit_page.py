"""docs/audit.md shows commands that exist, columns that are written, and a timeline as it is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from opstream.history.parquet_columns import SCHEMA
from tests.support.cli.commands import COMMANDS

pytestmark = pytest.mark.unit

TEXT: Final = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
SHELL: Final = re.sub(r"\$\([^()]*\)", "7", TEXT).replace("$id", "op-1").replace(" 2> told", "")
"""The line with the shell's substitutions."""
LINES: Final = re.findall(r"(?:^|do )(opstream (?:replay|audit|export|api)\b[^|>\n;#]*)", SHELL, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_commands_are_understood(line: str) -> None:
    """Each command in a code block accepts the options that it is shown with."""
    _, name, *arguments = shlex.split(line)
    COMMANDS[name].make_context(name, arguments)


def test_there_are_commands() -> None:
    """All three commands are shown."""
    assert {line.split()[1] for line in LINES} == {"replay", "audit", "export", "api"}
    assert len(LINES) > 12


def test_all_columns_are_listed() -> None:
    """The table of columns has those of the file, and no others."""
    (section,) = [part for part in TEXT.split("\n## ") if part.startswith("Export")]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(SCHEMA.names)
