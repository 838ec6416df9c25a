"""`opstream up`, whose api, projector and webhooks are one process: what a kill and a failure do to all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import nats
import pytest

from opstream_schemas import subjects
from tests.support.system.echo_actions import MODULE, poll
from tests.support.system.invariants import breaches, gather
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

READY: Final = r"^opstream is ready: API (\S+), broker (\S+)$"
SUBMITTERS: Final = 8
BEFORE_KILL: Final = 200
"""Requests that are accepted before the kill."""


def start_up(workplace: Path) -> Process:
    return Process("up", "--port", "0", "--nats-port", "0", "--data-dir", "data", "--actions", MODULE, cwd=workplace)


@pytest.fixture
def up(workplace: Path) -> Iterator[Process]:
    """A system that is ready."""
    with start_up(workplace) as up:
        up.wait_for(READY)
        yield up


def test_a_kill_under_load_loses_nothing(workplace: Path, http: httpx.Client) -> None:
    """The kill takes three services at once, in the middle of their work. After a restart each accepted operation has
    succeeded, and all invariants hold."""
    accepted: list[str] = []
    is_enough = threading.Event()

    def submit_until_killed(api: str) -> None:
        with httpx.Client(trust_env=False) as client:
            while True:
                try:
                    response = client.post(f"{api}/echo:say", json={"text": "hello"})
                except httpx.TransportError:
                    return
                assert response.status_code == 202
                accepted.append(response.headers["Operation-Id"])
                if len(accepted) >= BEFORE_KILL:
                    is_enough.set()

    with start_up(workplace) as up, ThreadPoolExecutor(SUBMITTERS) as submitters:
        api = up.wait_for(READY)[1]
        submitting = [submitters.submit(submit_until_killed, api) for _ in range(SUBMITTERS)]
        assert is_enough.wait(30)
        os.kill(up.child("-m opstream hub"), signal.SIGKILL)
        assert up.wait(20) == 1
        assert "opstream: error: the hub ended unexpectedly (killed by SIGKILL)" in up.output
        for one in submitting:
            one.result()
    with start_up(workplace) as up:
        api, broker = up.wait_for(READY).groups()
        assert {poll(http, api, operation_id)["status"] for operation_id in accepted} == {"Succeeded"}
        evidence = asyncio.run(gather(broker))
        assert breaches(evidence) == []


def test_one_service_that_fails(up: Process) -> None:
    """It ends all, the output says which one and why, and each line of the log has the name of its service."""

    async def delete_consumer() -> None:
        client = await nats.connect(up.wait_for(READY)[2])
        await client.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER)
        await client.close()

    asyncio.run(delete_consumer())
    assert up.wait(20) == 1
    last = up.output.splitlines()[-1]
    assert last.startswith("opstream: error: the hub ended unexpectedly (exit status 1): projector: ")
    assert "consumer" in last
    for line in (r"^api +\| .* serving on ", r"^projector +\| .* projecting", r"^webhooks +\| .* endpoints: none"):
        up.wait_for(line)
