"""How many servers a broker's cluster has, for commands that make streams with replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opstream_schemas.text import format_count

if TYPE_CHECKING:
    from opstream_journal import Connection

PEERS_TIMEOUT: Final = 5.0
"""Seconds in which the servers of a cluster that has just started get to know each other."""
PEERS_DELAY: Final = 0.25


def known_servers(connection: Connection) -> int:
    """Return how many servers the broker's cluster has, as far as the server says; 0 if it is no cluster."""
    info = connection.nc._server_info  # noqa: SLF001 - nats-py has no public way
    return max(1, len(info.get("connect_urls") or ())) if info.get("cluster") else 0


def too_few_servers(replicas: int, servers: int, reason: str) -> str:
    """Return that the broker has too few servers, with the next step. `reason` is what the broker says, if it did."""
    has = format_count(servers, "server") if servers else "1 server, and is no cluster"
    return (
        f"{replicas} replicas need a cluster of at least {replicas} servers with JetStream, and the broker has {has}: "
        f"start more servers with the same cluster name, or choose --replicas {max(servers, 1)}"
        f"{f' (the broker says: {reason})' if reason else ''}"
    )
