"""Disasters of a cluster: three brokers on one machine, each stream with three replicas. No operator is needed."""

from __future__ import annotations

import asyncio
import shutil
from typing import Final

from opstream_schemas import subjects
from tests.disaster.scenario import Scenario
from tests.disaster.stage import Stage
from tests.support.broker.server import Broker

CATCHING_UP: Final = 120.0
"""Seconds that a server has to be current again."""


class ClusterScenario(Scenario):
    """A disaster of one server of three."""

    has_cluster = True

    async def start_again(self, stage: Stage, node: Broker) -> None:
        """Start a server that is down, and wait until it has caught up."""
        # Until then it shows the view as it was, so a projector may arm the deadline of an operation that has ended.
        stage.has_spare_timers = True
        node.start(wait=False)
        await asyncio.to_thread(stage.cluster.wait_healthy, CATCHING_UP)
        stage.say(f"{node.name} has caught up")


class StreamLeaderKill(ClusterScenario):
    """The server that leads the journal is killed (SIGKILL), and started again once another one leads."""

    name = "leader-kill"

    async def strike(self, stage: Stage) -> None:
        leader = await stage.cluster.leader(subjects.OPERATIONS_STREAM)
        leader.kill()
        stage.say(f"{leader.name}, which leads the journal, is killed")
        await stage.cluster.leader(subjects.OPERATIONS_STREAM)
        await stage.served()
        await self.start_again(stage, leader)


class MetaLeaderKill(ClusterScenario):
    """The server that leads the cluster's metadata is killed (SIGKILL), and started again once another one leads."""

    name = "meta-leader-kill"

    async def strike(self, stage: Stage) -> None:
        leader = await stage.cluster.meta_leader()
        leader.kill()
        stage.say(f"{leader.name}, which leads the cluster, is killed")
        await stage.cluster.meta_leader()
        await stage.served()
        await self.start_again(stage, leader)


class Isolation(ClusterScenario):
    """The server that leads the journal is cut off from the two others; its clients still reach it."""

    name = "isolation"

    async def strike(self, stage: Stage) -> None:
        stage.has_spare_timers = True  # as after a freeze
        leader = await stage.cluster.leader(subjects.OPERATIONS_STREAM)
        stage.cluster.isolate(leader)
        stage.say(f"{leader.name} is isolated")
        others = [node for node in stage.cluster.nodes if node is not leader]
        await stage.cluster.leader_among(others, subjects.OPERATIONS_STREAM)
        # The isolation lasts: this waits for nothing.
        await asyncio.sleep(stage.size.seconds)
        stage.cluster.join(leader)
        await asyncio.to_thread(stage.cluster.wait_healthy, CATCHING_UP)
        stage.say(f"{leader.name} is back")


class Freeze(ClusterScenario):
    """The server that leads the journal is frozen (SIGSTOP) until another one leads, and then thawed."""

    name = "freeze"

    async def strike(self, stage: Stage) -> None:
        # A server that is away keeps what it was sent, so a request to arm a deadline may be stored after the one to
        # remove it. Such a timer does nothing when it fires (docs/adr/0012).
        stage.has_spare_timers = True
        leader = await stage.cluster.leader(subjects.OPERATIONS_STREAM)
        leader.pause()
        stage.say(f"{leader.name} is frozen")
        await stage.cluster.leader(subjects.OPERATIONS_STREAM)
        # The freeze lasts: this waits for nothing.
        await asyncio.sleep(stage.size.seconds)
        leader.resume()
        await asyncio.to_thread(stage.cluster.wait_healthy, CATCHING_UP)
        stage.say(f"{leader.name} is back")


class WipedStore(ClusterScenario):
    """A server is killed, and started again with an empty store, as with a new disk."""

    name = "wiped-store"

    async def strike(self, stage: Stage) -> None:
        node = stage.victim()
        node.kill()
        shutil.rmtree(node.store)
        stage.say(f"{node.name} has lost its store")
        await self.start_again(stage, node)

    async def recover(self, stage: Stage) -> None:
        stage.operator("start the server again on the empty disk")
