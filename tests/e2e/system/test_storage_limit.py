"""A broker at its limit of storage: every service says so, the runner's log stays short, and all goes on afterwards."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.broker.server import Broker, free_port
from tests.support.system import echo_actions
from tests.support.system.processes import Process, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

INPUT: Final = "x" * 120_000
CONDITION: Final = "StorageLimitReached"
_REMINDER: Final = 30.0
"""Seconds between two lines of one kind."""
_KINDS: Final = 3
"""Kinds of lines of one process: the condition, and what the process itself can't do. None is of one operation."""
_TROUBLE: Final = re.compile(r"^\S+Z (?:WARNING|ERROR) .*$", re.MULTILINE)


def _kind(line: str) -> str:
    """Return the logger of a line and what it says first, up to the colon."""
    return ":".join(line.split(maxsplit=2)[2].split(":")[:2])


async def test_the_broker_is_at_its_limit(tmp_path: Path) -> None:
    """With max_file_store reached, all services turn to 503 with the limit and the step, with a line every 30 s;
    with more room they are ready again, and what was accepted ends."""
    echo_actions.write_actions(tmp_path)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(jetstream="max_file_store: 2MB"))
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=20))
        assert run("provision", "--nats", broker.url).returncode == 0
        ports = {name: free_port() for name in ("api", "runner", "projector", "webhooks")}
        services: dict[str, Process] = {}
        for name, port in ports.items():
            option = ("--port", str(port)) if name == "api" else ("--health-port", str(port))
            actions = ("--actions", echo_actions.MODULE) if name == "runner" else ()
            services[name] = stack.enter_context(Process(name, "--nats", broker.url, *option, *actions, cwd=tmp_path))
        api = f"http://127.0.0.1:{ports['api']}"

        def look(name: str) -> tuple[int, dict[str, Any]]:
            try:
                response = http.get(f"http://127.0.0.1:{ports[name]}/readyz")
            except httpx.TransportError:
                return 0, {}
            return response.status_code, response.json()

        for name in ports:
            await eventually(lambda name=name: look(name)[0] == 200, within=60)
        began = time.monotonic()
        accepted: list[str] = []
        for number in range(18):
            response = http.post(f"{api}/echo:say", json={"text": INPUT}, headers={"Operation-Id": f"op-{number}"})
            if response.status_code == 202:
                accepted.append(f"op-{number}")
            else:
                assert (response.status_code, response.json()["error"]["code"]) == (503, "JournalFull")
        assert 5 < len(accepted) < 18

        def is_said(name: str) -> bool:
            status, body = look(name)
            return status == 503 and [one["name"] for one in body["conditions"]] == [CONDITION]

        for name in ports:
            await eventually(lambda name=name: is_said(name), within=30)
            (condition,) = look(name)[1]["conditions"]
            assert condition["isBlocking"] is True
            assert "max_file_store" in condition["message"]
            assert "raise max_file_store" in condition["nextStep"]
        for service in services.values():
            await eventually(lambda service=service: service.output.count(f" {CONDITION}: the broker") == 2, within=60)
        for name, service in services.items():
            lines = _TROUBLE.findall(service.output)
            kinds = Counter(_kind(line) for line in lines)
            assert len(kinds) <= _KINDS, (name, lines)
            assert max(kinds.values()) <= 1 + (time.monotonic() - began) / _REMINDER, (name, lines)
            assert "refused" in lines[-1] or name == "webhooks", (name, lines)
        broker.stop()
        broker.configure("max_file_store: 100MB")
        broker.start()
        for name, service in services.items():
            await eventually(lambda name=name: look(name)[0] == 200, within=60)
            service.wait_for(f"INFO .* {CONDITION}: this is over")
        for one in accepted:
            assert echo_actions.poll(http, api, one, 60.0)["status"] == "Succeeded"
        for name, service in services.items():
            assert " ERROR " not in service.output, (name, service.output)
            assert "Traceback" not in service.output, (name, service.output)
