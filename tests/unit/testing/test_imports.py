"""What `opstream.testing` brings into a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("module", ["opstream.testing", "opstream", "opstream_runner", "opstream_runner.main"])
def test_no_pytest_at_run_time(module: str) -> None:
    """pytest is imported by the plugin alone: who installs opstream for production need not have it."""
    source = (
        f"import sys, {module}; print(sorted(name for name in sys.modules if name.startswith(('pytest', '_pytest'))))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_runner_does_not_import_the_kit() -> None:
    """The kit is for tests: no service loads it."""
    source = "import sys, opstream_runner.main, opstream.cli.app; print('opstream.testing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
