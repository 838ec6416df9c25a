"""What `/readyz` and the last lines of all services say while the broker is away, silent, or has no journal."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from opstream_journal import connect
from opstream_schemas import subjects
from tests.support.broker.server import free_port
from tests.support.system import echo_actions
from tests.support.system.processes import Process, run
from tests.support.system.services import BROKER, System

pytestmark = pytest.mark.e2e

SILENCE: Final = 30.0
"""Seconds in which a service notices a broker that says nothing: some ten, and more on a busy machine."""


class Services(NamedTuple):
    """All services by their names, with the URL of the health of each."""

    system: System
    processes: dict[str, Process]
    urls: dict[str, str]
    http: httpx.Client

    def readiness(self, name: str) -> tuple[int, list[dict[str, Any]]]:
        """The status of `/readyz` and its blocking conditions."""
        answer = self.http.get(f"{self.urls[name]}/readyz")
        return answer.status_code, [one for one in answer.json().get("conditions", []) if one["isBlocking"]]

    def reach(self, wanted: Callable[[int, list[dict[str, Any]]], bool], within: float) -> None:
        """Wait until `/readyz` of every service is as wanted. A 503 without a blocking condition is never right."""
        until = time.monotonic() + within
        for name in self.processes:
            while True:
                status, blocking = self.readiness(name)
                assert status == 200 or blocking, name
                if wanted(status, blocking):
                    break
                assert time.monotonic() < until, (name, status, blocking)
                time.sleep(0.1)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """All services, ready."""
    echo_actions.write_actions(tmp_path)
    with ExitStack() as stack:
        system = System(tmp_path, stack, echo_actions.MODULE)
        system.begin()
        port = free_port()
        webhooks = stack.enter_context(
            Process("webhooks", "--nats", system.nats, "--health-port", str(port), cwd=tmp_path)
        )
        webhooks.wait_for("endpoints: ")
        found = Services(
            system,
            {**{name: system.processes[name] for name in system.names}, "webhooks": webhooks},
            {**{name: system.url(name) for name in system.names}, "webhooks": f"http://127.0.0.1:{port}"},
            stack.enter_context(httpx.Client(trust_env=False, timeout=20)),
        )
        found.reach(lambda status, _: status == 200, 30)
        yield found


def test_a_broker_that_is_silent_or_away(services: Services) -> None:
    """Each service is not ready, names the same condition with its next step, also in its log, and recovers."""

    def is_away(status: int, blocking: list[dict[str, Any]]) -> bool:
        return status == 503 and [one["name"] for one in blocking] == ["BrokerAway"] and bool(blocking[0]["nextStep"])

    services.system.freeze(BROKER)
    try:
        services.reach(is_away, SILENCE)
    finally:
        services.system.thaw(BROKER)
    services.reach(lambda status, _: status == 200, 30)
    # One whose connection is given up before its second look in vain says that instead; both are BrokerAway.
    assert any("is it stopped or overloaded?" in process.output for process in services.processes.values())
    services.system.processes[BROKER].send(signal.SIGTERM)
    services.system.processes[BROKER].wait(10)
    services.reach(is_away, 5)
    for process in services.processes.values():
        assert "BrokerAway: " in process.output
        assert "; next step: start the broker" in process.output
    services.system.start(BROKER)
    services.system.wait_ready(BROKER)
    services.reach(lambda status, _: status == 200, 30)


async def delete_journal(url: str) -> None:
    """Delete the stream."""
    link = await connect([url], "test", connect_timeout=5)
    await link.nc.jetstream().delete_stream(subjects.OPERATIONS_STREAM)
    await link.close()


def test_a_deleted_journal(services: Services) -> None:
    """One blocking condition says to restore a backup; so do the last lines of the processes that end. An API that
    has run through it says that the journal has lost events once there is an empty one."""
    system = services.system
    operation_id = echo_actions.submit(services.http, system.api, "say")
    assert echo_actions.poll(services.http, system.api, operation_id)["status"] == "Succeeded"
    assert run("verify", "--nats", system.nats).returncode == 0  # so the view has it, too
    asyncio.run(delete_journal(system.nats))

    status, blocking = services.readiness("api")
    until = time.monotonic() + 20
    while status == 200:
        assert time.monotonic() < until
        status, blocking = services.readiness("api")
    assert [one["name"] for one in blocking] == ["StreamMissing"]
    assert "restore it while the broker has no stream OPERATIONS" in blocking[0]["nextStep"]
    for name in ("runner", "projector"):
        assert services.processes[name].wait(40) == 1
        last = services.processes[name].output.splitlines()[-1]
        assert "if there is a backup of the journal, restore it" in last
    for command in ("verify", "rebuild", "replay"):
        refused = run(command, "--nats", system.nats)
        assert refused.returncode == 1
        assert "restore it from a backup first" in refused.stderr, command

    assert run("provision", "--nats", system.nats, "--actions", echo_actions.MODULE, cwd=system.folder).returncode == 0
    services.processes["api"].wait_for("ERROR .* JournalSetback: the journal has lost events", 60)
    assert "JournalSetback" in services.http.get(f"{system.api}/readyz").text
