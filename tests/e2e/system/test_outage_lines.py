"""What the services' logs say about a broker that is away for a while."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.broker.server import free_port
from tests.support.system import echo_actions
from tests.support.system.processes import Process
from tests.support.system.services import BROKER, System

pytestmark = pytest.mark.e2e

REFUSED: Final = 40
"""Requests that the API answers with 503 while the broker is away; each takes some seconds."""
MOST_WARNINGS: Final = 12
"""Of one process in an outage of less than half a minute."""
_LEVEL: Final = re.compile(r"^\S+Z (\w+) ", re.MULTILINE)


def test_an_outage_of_the_broker(tmp_path: Path) -> None:
    """Each service warns that the broker is away, in a few lines however many requests, reconnects and heartbeats fail,
    and says at INFO that it is back."""
    echo_actions.write_actions(tmp_path)
    with ExitStack() as stack:
        system = System(tmp_path, stack, echo_actions.MODULE)
        system.begin()
        webhooks = stack.enter_context(
            Process("webhooks", "--nats", system.nats, "--health-port", str(free_port()), cwd=tmp_path)
        )
        webhooks.wait_for("endpoints: ")
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=20))
        echo_actions.submit(http, system.api, "wait")
        system.processes["runner"].wait_for("attempt 1")
        services = {**{name: system.processes[name] for name in system.names}, "webhooks": webhooks}
        before = {name: len(process.output) for name, process in services.items()}
        system.kill(BROKER)
        with ThreadPoolExecutor(REFUSED) as pool:
            posts = [
                pool.submit(
                    http.post, f"{system.api}/echo:say", json={"text": "hello"}, headers={"Operation-Id": str(n)}
                )
                for n in range(REFUSED)
            ]
            assert {post.result().status_code for post in posts} == {503}
        system.start(BROKER)
        system.wait_ready(BROKER)
        for process in services.values():
            process.wait_for("INFO .* the broker connection is back, after")
        echo_actions.submit(http, system.api, "say")
        services["api"].wait_for("INFO .* the journal accepts requests again, after")
        for name, process in services.items():
            lines = process.output[before[name] :]
            levels = Counter(_LEVEL.findall(lines))
            assert 1 <= levels["WARNING"] <= MOST_WARNINGS, (name, lines)
            assert "WARNING opstream_journal.jetstream.connection: the broker connection is lost" in lines, name
            assert levels["ERROR"] == 0, (name, lines)
