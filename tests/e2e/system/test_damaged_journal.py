"""The whole system as processes, on a journal that a bad disk has cut: what clients and operators see of it."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.broker.damage import StreamFiles
from tests.support.journal.journals import linked
from tests.support.projector.projection import settled
from tests.support.system.echo_actions import poll, submit, write_actions
from tests.support.system.processes import run
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

OPERATIONS = 30


def store_of(system: System) -> Path:
    """The folder of the broker's JetStream."""
    return next((system.folder / "data").rglob("$G")).parent


async def view_is_settled(system: System) -> None:
    """Wait until the view is up to date."""
    async with linked(system.nats) as link:
        await settled(link)


def conditions(http: httpx.Client, system: System, name: str) -> dict[str, str]:
    """The conditions that a service shows, by name; it must be ready."""
    response = http.get(f"{system.url(name)}/readyz")
    assert response.status_code == 200, response.text
    found: list[dict[str, str]] = response.json().get("conditions", [])
    return {one["name"]: one["message"] for one in found}


def test_a_journal_that_was_cut(tmp_path: Path) -> None:
    """Finished operations keep their statuses, and new ones run; services that were there all the time, and one that
    starts, report the loss; verify says what is lost; a forced rebuild keeps it in a file."""
    write_actions(tmp_path)
    with ExitStack() as stack:
        system = System(tmp_path, stack, "echoes")
        system.begin()
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=10))
        before = {}
        for number in range(OPERATIONS):  # each ends before the next begins, so some end before the damage
            one = submit(http, system.api, "say", f"text {number}")
            before[one] = poll(http, system.api, one)
        asyncio.run(view_is_settled(system))

        system.processes[BROKER].send(signal.SIGTERM)
        system.processes[BROKER].wait(10)
        files = StreamFiles(store_of(system), "OPERATIONS")
        files.flip(files.blocks[0])
        files.remove_index()
        system.start(BROKER)
        system.wait_ready(BROKER)
        system.kill("api")
        system.start("api")
        system.wait_ready(*system.names)

        async def are_reported() -> bool:
            return all("JournalSetback" in conditions(http, system, name) for name in ("api", "projector"))

        asyncio.run(eventually(are_reported, within=40))
        assert "it ends at sequence" in conditions(http, system, "projector")["JournalSetback"]
        for name in ("api", "projector"):
            system.processes[name].wait_for(r" ERROR .*JournalSetback: the journal has lost events: ")
        assert {one: poll(http, system.api, one) for one in before} == before
        for number in range(3):
            new = submit(http, system.api, "say", f"new {number}")
            assert poll(http, system.api, new)["status"] == "Succeeded"

        verified = run("verify", "--nats", system.nats, cwd=tmp_path)
        assert verified.returncode == 3, verified.stderr
        lost = {line.partition(":")[0] for line in verified.stdout.splitlines()}
        assert 0 < len(lost) < OPERATIONS
        assert lost <= set(before)
        rebuilt = run("rebuild", "--nats", system.nats, "--force", "--export", "lost", cwd=tmp_path)
        assert rebuilt.returncode == 0, rebuilt.stderr
        lines: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "lost").read_text().splitlines()]
        assert {line["operationId"] for line in lines} == lost
        assert {line["operationId"]: line["snapshot"]["result"] for line in lines} == {
            one: before[one]["result"] for one in lost
        }
