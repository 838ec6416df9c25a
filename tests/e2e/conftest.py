"""Fixtures of the tests that start real processes. Helpers live in `tests/support/`, never here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.system.echo_actions import write_actions


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A working directory with a module of actions, `echoes`, in it."""
    write_actions(tmp_path)
    return tmp_path


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """An HTTP client that no proxy of the environment comes between."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client
