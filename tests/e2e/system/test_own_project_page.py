"""docs/your-own-project.md: its module, its tests and its commands work as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.system.processes import Process, environment, run

pytestmark = pytest.mark.e2e

PAGE: Final = (Path(__file__).resolve().parents[3] / "docs" / "your-own-project.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(
    re.findall(r"^```(?:python|toml)\n# (\w+\.(?:py|toml))\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
)
COMMANDS: Final = re.findall(r"^\.venv/bin/(.+)$", PAGE, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project of the page."""
    for name, source in BLOCKS.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    return tmp_path


def test_the_tests(folder: Path) -> None:
    """The tests of the page pass, run as the page says."""
    (command,) = [one for one in COMMANDS if one.startswith("pytest")]
    assert BLOCKS.keys() == {"orders.py", "test_orders.py", "pyproject.toml"}
    tested = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=environment({"PYTHONPATH": str(folder)}),
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "4 passed" in tested.stdout
    assert "warning" not in (tested.stdout + tested.stderr).lower()


def test_the_commands(folder: Path) -> None:
    """The system of the page starts, and its operation succeeds in the second attempt."""
    (up,) = [shlex.split(one) for one in COMMANDS if one.startswith("opstream up")]
    (submit,) = [shlex.split(one) for one in COMMANDS if one.startswith("opstream run ")]
    ports = ("--port", "0", "--nats-port", "0", "--data-dir", "data")
    with Process(*up[1:], *ports, cwd=folder) as system:
        api = system.wait_for(r"^opstream is ready: API (http://\S+),")[1]
        done = run(*submit[1:], extra={"OPSTREAM_URL": api, "NO_PROXY": os.environ.get("NO_PROXY", "127.0.0.1")})
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["parcel"].startswith("parcel-")
        system.wait_for(r"INFO .*attempt 1 failed: 503: the strong one is at lunch; the next follows at")
        system.wait_for(r"INFO +orders: operation \S+: shipped 2 items")
