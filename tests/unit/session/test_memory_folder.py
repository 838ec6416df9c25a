"""The folder in memory that a run of the tests works in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.session import memory_folder as module
from tests.support.session.memory_folder import memory_folder

pytestmark = pytest.mark.unit


def test_a_run_that_was_killed_leaves_nothing_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run removes what it left; folders of runs that go on stay."""
    monkeypatch.setattr(module, "_NEEDED", 1)
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / f"opstream-tests-{ended.pid}-x"
    (left / "store").mkdir(parents=True)
    running = tmp_path / f"opstream-tests-{os.getpid()}-y"
    running.mkdir()
    other = tmp_path / "opstream-tests-of-nobody"
    other.mkdir()
    made = memory_folder(tmp_path)
    assert made is not None
    assert set(tmp_path.iterdir()) == {running, other, Path(made)}


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers often have 64 MiB there."""
    monkeypatch.setattr(module, "_NEEDED", 1 << 62)
    assert memory_folder(tmp_path) is None
    assert not any(tmp_path.iterdir())


def test_no_such_place(tmp_path: Path) -> None:
    """As on macOS."""
    assert memory_folder(tmp_path / "shm") is None
