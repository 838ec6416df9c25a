"""Services and commands that are started in a cluster without quorum say so, within their time; those that run, in few
lines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.broker.server import Cluster, free_port
from tests.support.system import echo_actions
from tests.support.system.processes import Process
from tests.support.system.scrape import scrape
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

TIME: Final = 4
"""Seconds that each has (`--connect-timeout`)."""
OVERHEAD: Final = 10
"""Seconds for the start and the end of a process on a busy machine. One call without answer takes 5 s of its own, and
each start makes several."""
MOST_LINES: Final = 8
"""Of one process in the first 40 s of an outage; before, each of its consumers wrote two a second."""
MOST_HOPS: Final = 2
"""Servers that are killed, each of which it may have been connected to. Lost and back are two lines each."""
_HOP: Final = re.compile(r"the broker connection is (?:lost|back)|BrokerAway: ")
_LEVEL: Final = re.compile(r"^\S+Z (INFO|WARNING|ERROR) ", re.MULTILINE)


@pytest.fixture
def lonely() -> Iterator[str]:
    """The URLs of three servers of which one runs."""
    cluster = Cluster()
    try:
        cluster.nodes[0].start()
        yield ",".join(cluster.urls)
    finally:
        cluster.close()


@pytest.mark.parametrize(
    "command",
    [
        ("runner", "--actions", "tests.support.runner.stubborn_actions"),
        ("projector",),
        ("webhooks",),
        ("api", "--port", "0"),
        ("provision", "--replicas", "3"),
        ("verify",),
        ("rebuild",),
    ],
)
def test_started_without_quorum(lonely: str, command: tuple[str, ...]) -> None:
    """The error names the missing leader, how many servers answer, and what to start."""
    if command[0] == "api":
        command = ("api", "--port", str(free_port()))
    variables = {"OPSTREAM_NATS_URL": lonely}
    with Process(*command, "--connect-timeout", f"{TIME}s", extra=variables) as process:
        assert process.wait(TIME + OVERHEAD) == 1
        (error,) = [line for line in process.output.splitlines() if line.startswith("opstream: error: ")]
        assert "the journal has no leader" in error
        assert "1 of the 3 servers that this process knows answers" in error
        assert "start the servers of the cluster that are down" in error
        assert not re.search("enabled|ARCHIVE|not ready", error)


def test_lines_of_an_outage(tmp_path: Path, http: httpx.Client) -> None:
    """Without quorum each service writes that it is so, and again every 30 s, however many consumers it has. Meanwhile
    its `/readyz` is 503 and its metrics say why; both are right again with the quorum."""
    echo_actions.write_actions(tmp_path)
    with ExitStack() as stack:
        cluster = Cluster()
        stack.callback(cluster.close)
        cluster.start()
        variables = {"OPSTREAM_NATS_URL": ",".join(cluster.urls)}
        with Process("provision", "--replicas", "3", extra=variables) as provisioned:
            assert provisioned.wait(60) == 0, provisioned.output
        commands: dict[str, tuple[str, ...]] = {
            "projector": (),
            "api": ("--port", str(free_port())),
            "runner": ("--actions", echo_actions.MODULE),
            "webhooks": (),
        }
        ports = {name: str(free_port()) for name in commands}
        services = {
            name: stack.enter_context(
                Process(name, *options, "--health-port", ports[name], extra=variables, cwd=tmp_path)
            )
            for name, options in commands.items()
        }
        urls = [f"http://127.0.0.1:{port}" for port in ports.values()]
        urls.append(f"http://127.0.0.1:{commands['api'][1]}")
        services["api"].wait_for("serving on", 60)
        services["runner"].wait_for("running echo", 60)
        services["webhooks"].wait_for("endpoints: ", 60)
        services["projector"].wait_for("INFO ", 60)
        _wait_for_readiness(http, urls, 200)
        before = {name: len(process.output) for name, process in services.items()}
        for node in cluster.nodes[1:]:
            node.kill()
        for process in services.values():
            process.wait_for(r"WARNING .*JournalHasNoLeader: .*1 of the 3 servers", 60)
        _wait_for_readiness(http, urls, 503)
        for url in urls[: len(ports)]:
            page = scrape(http, url)
            assert page.value("opstream_ready") == 0
            assert page.value("opstream_condition", condition="JournalHasNoLeader") == 1
            assert not page.series("opstream_projector_lag_events")  # it is not known
        first = {name: len(process.output) for name, process in services.items()}
        for name, process in services.items():
            _wait_for_reminder(process, first[name])
            lines = process.output[before[name] :]
            logged = [line for line in lines.splitlines() if _LEVEL.match(line)]
            hops = [line for line in logged if _HOP.search(line)]
            assert len(hops) <= 4 * MOST_HOPS, (name, lines)
            assert len(logged) - len(hops) <= MOST_LINES, (name, lines)
        for node in cluster.nodes[1:]:
            node.start()
        for process in services.values():
            process.wait_for("INFO .*JournalHasNoLeader: this is over", 90)
        _wait_for_readiness(http, urls, 200)
        assert [scrape(http, url).value("opstream_ready") for url in urls[: len(ports)]] == [1] * len(ports)


def _wait_for_readiness(http: httpx.Client, urls: Sequence[str], status: int) -> None:
    """Wait until `/readyz` of all services has a status code."""
    asyncio.run(
        eventually(lambda: all(http.get(f"{url}/readyz").status_code == status for url in urls), within=60, poll=0.2)
    )


def _wait_for_reminder(process: Process, begin: int) -> None:
    asyncio.run(eventually(lambda: "JournalHasNoLeader" in process.output[begin:], within=60, poll=0.1))
