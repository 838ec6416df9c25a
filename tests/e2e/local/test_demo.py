"""`opstream demo` as a process."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.system.processes import Process, Watch, run

pytestmark = pytest.mark.e2e


@pytest.fixture
def temporary(tmp_path: Path) -> dict[str, str]:
    """An environment in which temporary folders are made in a folder of the test's own."""
    return {"TMPDIR": str(tmp_path)}


def test_demo(temporary: dict[str, str], tmp_path: Path) -> None:
    """It shows every chapter in time, exits with 0, and leaves neither files nor processes."""
    begin = time.monotonic()
    result = run("demo", extra=temporary, cwd=tmp_path, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert time.monotonic() - begin < 60
    output = result.stdout
    assert "\x1b" not in output
    assert output.count("<- 202 Accepted\n   Operation-Location: http://127.0.0.1:") == 4
    assert len(re.findall(r"^<- 200 NotStarted -> (?:Running.*|Succeeded)$", output, re.MULTILINE)) == 4
    assert "<- 400 Bad Request\n   x-ms-error-code: InvalidInput\n" in output
    assert '"filesUnchanged": 3' in output
    history, _, audit = output.partition("== 5. ")[2].partition("== 6. ")
    assert "   asked       " in audit
    assert "   hashes      ok: each event carries the hash of the one before it\n" in audit
    assert re.search(r"^   OPERATIONS: \d+ events of 4 operations .*, 0 findings$", audit, re.MULTILINE)
    assert [len(re.findall(rf"  {event} ", history)) for event in ("requested", "started", "succeeded")] == [4, 4, 4]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped(temporary: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    """Stopped while the system starts, it leaves nothing behind, either."""
    with Process("demo", extra=temporary, cwd=tmp_path) as demo:
        demo.wait_for("opstream up")
        watch = Watch(demo.descendants())
        demo.send(number)
        assert demo.wait(15) == 1
        assert watch.left_after(0) == []
        assert "Traceback" not in demo.output
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_fails(temporary: dict[str, str], tmp_path: Path) -> None:
    """It prints the reason and the last lines of the system, exits with 1, and leaves nothing behind."""
    with Process("demo", extra=temporary, cwd=tmp_path) as demo:
        demo.wait_for("opstream is ready")
        os.kill(demo.child("-m opstream hub"), signal.SIGKILL)
        assert demo.wait(20) == 1
        assert "opstream: error: " in demo.output
        assert "the hub ended unexpectedly (killed by SIGKILL)" in demo.output
    assert list(tmp_path.iterdir()) == []
