"""CHANGELOG.md has a section for this version, which names a commit that has it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from opstream._version import __version__

ROOT: Final = Path(__file__).resolve().parents[3]
SECTION: Final = re.compile(
    r"^## \[(?P<version>[^]]+)\] - (?P<date>\d{4}-\d{2}-\d{2})\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
COMMIT: Final = re.compile(r"Commit `(?P<id>[0-9a-f]{10,40})`")
VERSION_FILE: Final = "opstream/_version.py"

pytestmark = pytest.mark.unit


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in this checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def sections() -> dict[str, str]:
    """Return the text of each released version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return {found["version"]: found["text"] for found in SECTION.finditer(text)}


def test_this_version_is_the_newest_in_the_changelog() -> None:
    """The first section with a date is this version's."""
    assert next(iter(sections())) == __version__


def test_the_commit_of_this_version() -> None:
    """It is in the history, and its sources say this version."""
    named = COMMIT.search(sections()[__version__])
    assert named is not None, f"name the commit of {__version__}: Commit `0123456789`."
    if git("rev-parse", "--git-dir").returncode != 0:
        pytest.skip("this is no git checkout, so there is no history to look at")

    shown = git("show", f"{named['id']}:{VERSION_FILE}")

    assert shown.returncode == 0, shown.stderr
    assert f'"{__version__}"' in shown.stdout
