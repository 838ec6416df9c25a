"""The slow disk of `make chaos FSYNC_US=2000`."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.harness.slow_disk import check_tracer
from opstream.terminal.console import CommandError
from tests.support.chaos.system import ChaosSystem
from tests.support.system.services import BROKER

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed, so no fsync can be delayed"),
]


def test_a_kill_means_the_broker(tmp_path: Path) -> None:
    """The process that chaos kills and stops is nats-server, traced; after the kill it starts again on its data."""
    try:
        check_tracer(1)
    except CommandError as error:
        pytest.skip(error.message)
    with ExitStack() as stack:
        system = ChaosSystem(tmp_path, stack, fsync_us=100)
        system.start(BROKER)
        system.wait_ready(BROKER)
        first = system.processes[BROKER]
        status = Path(f"/proc/{first.pid}/status").read_text(encoding="utf-8")
        assert Path(f"/proc/{first.pid}/exe").readlink().name == "nats-server"
        assert "TracerPid:\t0\n" not in status
        system.freeze(BROKER)
        system.thaw(BROKER)
        system.kill(BROKER)
        assert first.wait(5) == -signal.SIGKILL
        system.start(BROKER)
        system.wait_ready(BROKER)
        assert system.complaints() == []
