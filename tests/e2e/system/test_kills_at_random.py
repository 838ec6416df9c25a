"""Processes of two replicas are killed or frozen at random moments under load: the invariants hold."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Final

import pytest

from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import LEASE, write_module
from tests.support.system.load import Load
from tests.support.system.services import BROKER, System

pytestmark = pytest.mark.e2e

SECONDS: Final = 10.0
PAUSE: Final = 0.8
"""Maximum seconds between two disturbances."""
SEED: Final = int(os.environ.get("OPSTREAM_TEST_SEED") or secrets.randbits(32))
"""Set the variable to the seed of a failure to have the same disturbances and clients again, if not the same
moments."""


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    folder = tmp_path_factory.mktemp("random")
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder), replicas=2)
        system.begin()
        yield system


async def disturb(system: System, random: Random, seconds: float) -> list[str]:
    """Kill or freeze something, and start it again or let it go on, now or a moment later, and so on; what was done."""
    done = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # A random pause: this waits for nothing.
        await asyncio.sleep(random.uniform(0, PAUSE))
        name = random.choice([BROKER, *system.names])
        is_frozen = random.random() < 0.25
        done.append(f"{'freeze' if is_frozen else 'kill'} {name}")
        if is_frozen:
            system.freeze(name)
            await asyncio.sleep(random.uniform(0, 2 * LEASE))
            system.thaw(name)
        else:
            system.kill(name)
            await asyncio.sleep(random.choice([0, 0, random.uniform(0, PAUSE)]))
            system.start(name)
    return done


async def test_everything_at_random(system: System) -> None:
    """All invariants hold: each 202 ends exactly once, no late attempt records, no status goes back."""
    print(f"OPSTREAM_TEST_SEED={SEED}")
    async with Load(system.apis, Random(SEED)) as load:
        async with load.clients(16, ("quick", "quick", "slow", "thread", "fail"), pause=0.15):
            print(*await disturb(system, Random(SEED), SECONDS), sep=", ")
            await asyncio.to_thread(system.wait_ready, BROKER, *system.names)
        evidence = load.testify(await gather(system.nats))
    assert system.complaints() == []
    assert load.problems == []
    assert breaches(evidence) == []
    assert load.ended > 30
