"""docs/testing.md: its module and its tests do what the page says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.system.processes import environment

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).resolve().parents[3]
PAGE: Final = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
SHOWN: Final = re.findall(r"^```text\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
CONFIGURATION: Final = "[pytest]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project of the page."""
    (tmp_path / "pytest.ini").write_text(CONFIGURATION, encoding="utf-8")
    for name, source in BLOCKS.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    return tmp_path


def pytest_of(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the page."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=environment({"COLUMNS": "200"}),
    )


def test_the_bug_is_found(folder: Path) -> None:
    """The test of the action that charges twice is red, with the message of the page; all others are green."""
    done = pytest_of(folder, "test_orders.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 4 passed" in done.stdout
    assert re.search(
        r"^FAILED test_orders.py::test_one_charge_whenever_the_runner_dies\[(pay|action0)\]", done.stdout, re.MULTILINE
    )
    (shown,) = SHOWN
    for line in shown.splitlines():
        assert line in done.stdout


def test_cancels_and_children(folder: Path) -> None:
    """The action that gives the money back passes, wherever it is canceled; so do those of a child that is given."""
    done = pytest_of(folder, "test_shipping.py", "test_binding.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_whole_system(folder: Path) -> None:
    """The page's test over HTTP passes, with the fixtures that its conftest.py asks for."""
    done = pytest_of(folder, "test_service.py", f"--basetemp={folder / 'temp'}")
    assert done.returncode == 0, done.stdout + done.stderr
