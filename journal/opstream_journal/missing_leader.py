"""Says what is missing when JetStream has no leader, and the next step: one text for services and commands.

nats-server answers "JetStream system temporarily unavailable", or nothing, which helps no operator. A client may not
ask which servers it misses. But it knows addresses of servers, and can see which of them greet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from .errors import JournalUnavailable, NoLeader

if TYPE_CHECKING:
    from urllib.parse import ParseResult

    from nats.aio.client import Client

NEXT_STEP: Final = (
    "start the servers of the cluster that are down: more than half of them must run and reach each other. "
    "A server whose disk was full has switched JetStream off, as its log says: free space, restart it"
)

AWAY_STEP: Final = (
    "start the broker, or the servers of the cluster that are down, and see whether the network to it works; "
    "this process goes on by itself then"
)
"""For a connection that is lost."""
SILENT_STEP: Final = (
    "the broker does not answer: is it stopped or overloaded? Look at its process and its machine, and restart it if "
    "it stays silent"
)
STUCK_STEP: Final = (
    "look into the broker's own log: a server whose disk was full has switched JetStream off; free space, restart it"
)

_GREETING_TIMEOUT: Final = 1.0
_DEFAULT_PORT: Final = 4222


class Outage(NamedTuple):
    """Why a connected broker can't be used."""

    what: str
    next_step: str
    is_away: bool = False
    """True for a single server that does not even greet."""


async def look_for_servers(nc: Client) -> Outage:
    """Return what is missing, as far as this client can see, in at most a second."""
    servers = list(dict.fromkeys(nc.servers))
    greeted = await asyncio.gather(*map(_greets, servers))
    silent = [_address(server) for server, is_up in zip(servers, greeted, strict=True) if not is_up]
    what = "the journal has no leader, so nothing can be stored or decided"
    if silent and not is_clustered(nc):
        return Outage(f"the broker at {', '.join(silent)} does not greet a client", SILENT_STEP, is_away=True)
    if silent:
        up = len(servers) - len(silent)
        verb = "answers" if up == 1 else "answer"
        known = f"{up} of the {len(servers)} servers that this process knows {verb}, not {', '.join(silent)}"
        return Outage(f"{what}: {known}", NEXT_STEP)
    if not is_clustered(nc):
        return Outage(f"{what}: the broker answers, and it is no cluster, so its JetStream is off or stuck", STUCK_STEP)
    if len(servers) == 1:
        return Outage(f"{what}: the one server that this process knows answers, too few others do", NEXT_STEP)
    return Outage(
        f"{what}: the {len(servers)} servers that this process knows answer, but have not agreed on one", NEXT_STEP
    )


async def explain_unavailable(nc: Client, error: JournalUnavailable) -> str:
    """Return why a connected broker can't be used, with the next step."""
    found = await find_outage(nc, error)
    return (
        f"{error}; its own log may say why"
        if found is None
        else f"{found.what} ({error}); next step: {found.next_step}"
    )


async def find_outage(nc: Client, error: JournalUnavailable) -> Outage | None:
    """Return why a connected broker can't be used, as far as this client can see; None if it sees nothing."""
    # An isolated server leaves some calls unanswered and refuses others.
    if isinstance(error, NoLeader) or isinstance(error.__cause__, TimeoutError):
        found = await look_for_servers(nc)
        if isinstance(error, NoLeader) or found.is_away or is_clustered(nc):
            return found
    return None


def is_clustered(nc: Client) -> bool:
    """Return True if the server of a connection is one of a cluster."""
    return bool(nc._server_info.get("cluster"))  # noqa: SLF001 - nats-py has no name for it


def _address(server: ParseResult) -> str:
    return f"{server.hostname}:{server.port or _DEFAULT_PORT}"


async def _greets(server: ParseResult) -> bool:
    """Return True if a server says the first word, or, where TLS may come first, accepts connections."""
    try:
        async with asyncio.timeout(_GREETING_TIMEOUT):
            reader, writer = await asyncio.open_connection(server.hostname, server.port or _DEFAULT_PORT)
            try:
                return server.scheme != "nats" or (await reader.read(4)).startswith(b"INFO")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
