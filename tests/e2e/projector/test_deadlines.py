"""Deadlines in a whole system: they are enforced with no runner alive, and the status shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.system.echo_actions import poll, submit
from tests.support.system.services import System

pytestmark = pytest.mark.e2e

ACTIONS = '''\
"""Actions of a user, in the working directory."""
import asyncio

import msgspec

from opstream import ActionContext, action


class Words(msgspec.Struct, forbid_unknown_fields=True):
    text: str


@action("echo:soon", deadline=2)
async def soon(request: Words, ctx: ActionContext) -> Words:
    """Say the words soon, or never."""
    print("begun", flush=True)
    await asyncio.Event().wait()
    return request
'''


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A running system."""
    (tmp_path / "soon.py").write_text(ACTIONS, encoding="utf-8")
    with ExitStack() as stack:
        system = System(tmp_path, stack, "soon")
        system.begin()
        yield system


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


@pytest.mark.parametrize("is_begun", [False, True], ids=["before it begins", "while it runs"])
def test_no_runner_is_alive(system: System, client: httpx.Client, is_begun: bool) -> None:
    """An operation whose runners are all dead ends at its deadline with `DeadlineExceeded`."""
    if not is_begun:
        system.kill("runner")
    operation_id = submit(client, system.api, "soon")
    if is_begun:
        system.processes["runner"].wait_for("begun")
        system.kill("runner")

    monitor = poll(client, system.api, operation_id)

    assert (monitor["status"], monitor["error"]["code"]) == ("Failed", "DeadlineExceeded")
    created, ended = (datetime.fromisoformat(monitor[name]) for name in ("createdAt", "finishedAt"))
    assert timedelta(seconds=2) <= ended - created < timedelta(seconds=4)
    assert system.complaints() == []
