"""`opstream rebuild` as a process, while other processes are killed (SIGKILL), and when it is killed itself."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from random import Random
from typing import Final

import pytest

from bench.history import journal_fill
from opstream_journal import Connection
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.snapshots import VIEW_STREAM
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.projector.consistency import exit_status, lose
from tests.support.projector.projection import view_writes
from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import write_module
from tests.support.system.load import Load
from tests.support.system.processes import Process
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

OPERATIONS: Final = 3_000
PROJECTORS: Final = ("projector", "projector-2", "projector-3")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system with three projectors."""
    folder = tmp_path_factory.mktemp("rebuild")
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder))
        system.add(*PROJECTORS[1:])
        system.begin()
        yield system


async def writes(link: Connection, count: int) -> None:
    """Wait until so many more snapshots are written, by any process."""
    before = await view_writes(link)

    async def are_there() -> bool:
        return await view_writes(link) >= before + count

    await eventually(are_there, within=20, poll=0.0)


async def test_three_projectors_one_killed_at_any_moment(system: System) -> None:
    """Projectors are killed repeatedly under load, while a partly lost view is rebuilt: every status that a client sees
    is right, and at the end the view is the fold."""
    random = Random(5)
    async with Load(system.apis, random) as load, linked(system.nats) as link:
        async with load.clients(8, ("quick", "quick", "slow", "thread", "fail")):
            for _ in range(6):
                victim = random.choice(PROJECTORS)
                with Process("rebuild", "--nats", system.nats) as rebuild:
                    await writes(link, random.randint(1, 6))
                    await lose(link, *random.sample(sorted(load.promised), len(load.promised) // 3))
                    system.kill(victim)
                    await writes(link, random.randint(1, 6))
                    system.start(victim)
                    assert await asyncio.to_thread(rebuild.wait, 30) == 0, rebuild.output
        with Process("rebuild", "--nats", system.nats) as rebuild:
            assert await asyncio.to_thread(rebuild.wait, 30) == 0, rebuild.output
        await asyncio.to_thread(system.wait_ready, *system.names)
        assert load.ended > 20
        assert load.problems == []
        evidence = load.testify(await gather(system.nats))
        assert breaches(evidence) == []
        assert await asyncio.to_thread(exit_status, system.nats) == 0


@pytest.fixture
async def full() -> AsyncIterator[Broker]:
    """A broker with many operations and an empty view."""
    with Broker() as broker:
        async with linked(broker.url) as link:
            await provision(link, Sizing())
        await journal_fill.run(journal_fill.JournalFill(nats_url=broker.url, operations=OPERATIONS))
        yield broker


async def test_killed_halfway(full: Broker) -> None:
    """What a killed rebuild wrote is right, and the next run writes the rest; two at once share the work."""
    async with linked(full.url) as link:
        with Process("rebuild", "--nats", full.url) as rebuild:
            await writes(link, OPERATIONS // 10)
            rebuild.send(signal.SIGKILL)
            assert await asyncio.to_thread(rebuild.wait, 10) == -signal.SIGKILL
        assert await view_writes(link) < OPERATIONS

        with Process("rebuild", "--nats", full.url) as one, Process("rebuild", "--nats", full.url) as other:
            await writes(link, 1)
            for rebuild in (one, other):
                assert await asyncio.to_thread(rebuild.wait, 30) == 0, rebuild.output
        assert await view_writes(link) == OPERATIONS  # each was written once, by one of the three
        assert (await stream_bounds(link, VIEW_STREAM)).messages == OPERATIONS
    assert await asyncio.to_thread(exit_status, full.url) == 0


@pytest.mark.parametrize("arguments", [["rebuild"], ["verify"], ["verify", "--chain"]])
def test_an_interrupt_is_not_a_finding(arguments: list[str]) -> None:
    """An interrupt gives one line and status 130, which a script can tell from a difference or tampering."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        process = Process(*arguments, "--nats", f"nats://127.0.0.1:{nobody.getsockname()[1]}")
        with process, nobody.accept()[0]:
            process.send(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.output.startswith("opstream: error: interrupted")
            assert process.output.count("\n") == 1
