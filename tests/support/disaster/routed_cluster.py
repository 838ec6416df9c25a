"""Three brokers whose routes to each other go through proxies, so that one of them can be isolated from the others.

async with RoutedCluster.started() as cluster:
    cluster.isolate(cluster.nodes[0])  # its clients stay connected to it
    cluster.join(cluster.nodes[0])
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Final

from tests.support.broker.server import _POLL, Broker, Cluster, _streams, free_port
from tests.support.chaos.system import Net

_SIZE: Final = 3
_PATIENCE: Final = 1_200
"""Tries until there must be a leader."""


class RoutedCluster(Cluster):
    """Three brokers, each with a proxy of its own in front of each other one.

    Args:
        nets: proxies by the numbers of the nodes that they connect: from, to.
        ports: for routes, by number.
    """

    def __init__(self, nets: dict[tuple[int, int], Net], ports: list[int]) -> None:
        self._nets = nets
        self.nodes = []
        for number, port in enumerate(ports):
            routes = ", ".join(net.url for (source, _), net in nets.items() if source == number)
            extra = f"cluster {{ name: lab, listen: 127.0.0.1:{port}, no_advertise: true, routes: [{routes}] }}"
            self.nodes.append(Broker(f"n{number + 1}", extra=extra))

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls) -> AsyncIterator[RoutedCluster]:
        """Start a cluster, wait until it is healthy, and yield it."""
        ports = [free_port() for _ in range(_SIZE)]
        async with contextlib.AsyncExitStack() as stack:
            nets = {
                pair: await stack.enter_async_context(Net(ports[pair[1]]))
                for pair in itertools.permutations(range(_SIZE), 2)
            }
            cluster = cls(nets, ports)
            stack.callback(cluster.close)
            for node in cluster.nodes:
                node.start(wait=False)
            await asyncio.to_thread(cluster.wait_healthy)
            yield cluster

    def isolate(self, node: Broker) -> None:
        """Cut a node off from the others. Clients still reach it."""
        for net in self._nets_of(node):
            net.go_dark()

    def join(self, node: Broker) -> None:
        """Let it reach the others again."""
        for net in self._nets_of(node):
            net.light_up()

    async def leader_among(self, nodes: Sequence[Broker], stream: str) -> Broker:
        """The one of these nodes that leads a stream in their own eyes; waits for an election."""
        names = {node.name: node for node in nodes}
        for node in itertools.islice(itertools.cycle(nodes), _PATIENCE):
            answer = await asyncio.to_thread(node.monitor, "/jsz?accounts=true&streams=true")
            for info in _streams(answer):
                leader = (info.get("cluster") or {}).get("leader")
                if info["name"] == stream and leader in names:
                    return names[leader]
            await asyncio.sleep(_POLL)
        raise RuntimeError(f"none of {sorted(names)} leads stream {stream}")

    async def meta_leader(self) -> Broker:
        """The live node that leads the cluster's metadata."""
        for node in itertools.islice(itertools.cycle(self.live), _PATIENCE):
            answer = await asyncio.to_thread(node.monitor, "/jsz")
            leader = ((answer or {}).get("meta_cluster") or {}).get("leader")
            for one in self.live:
                if one.name == leader:
                    return one
            await asyncio.sleep(_POLL)
        raise RuntimeError("no live node leads the cluster")

    def _nets_of(self, node: Broker) -> list[Net]:
        number = self.nodes.index(node)
        return [net for pair, net in self._nets.items() if number in pair]
