"""`tests/support/README.md` lists the helper modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SUPPORT = Path(__file__).resolve().parents[2] / "support"
MAX_MODULES = 12


def test_the_table_lists_every_module_and_nothing_else() -> None:
    """Each module has one row with a description, in alphabetical order."""
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", (SUPPORT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    modules = sorted(path.relative_to(SUPPORT).as_posix() for path in SUPPORT.rglob("*.py"))
    assert [name for name, _ in rows] == modules
    assert all(purpose.strip() for _, purpose in rows)


def test_a_folder_holds_at_most_twelve_modules() -> None:
    """No helper lies flat beside the folders."""
    folders = {folder: len(list(folder.glob("*.py"))) for folder in (SUPPORT, *SUPPORT.rglob("*/"))}
    assert folders[SUPPORT] == 0
    assert max(folders.values()) <= MAX_MODULES
