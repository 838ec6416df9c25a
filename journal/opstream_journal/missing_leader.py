"""Says what is missing when JetStream has no leader, and the next step: one text for services and commands.

nats-server answers "JetStream system temporarily unavailable", or nothing, which helps no operator. A client may not
ask which servers it misses. But it knows addresses of servers, and can see which of them greet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .errors import JournalUnavailable, NoLeader

if TYPE_CHECKING:
    from urllib.parse import ParseResult

    from nats.aio.client import Client

NEXT_STEP: Final = (
    "start the servers of the cluster that are down: more than half of them must run and reach each other. "
    "A server whose disk was full has switched JetStream off, as its log says: free space, restart it"
)

_GREETING_TIMEOUT: Final = 1.0
_DEFAULT_PORT: Final = 4222


async def describe_missing_leader(nc: Client) -> str:
    """Return what is missing, as far as this client can see, in at most a second."""
    servers = list(dict.fromkeys(nc.servers))
    greeted = await asyncio.gather(*map(_greets, servers))
    silent = [_address(server) for server, is_up in zip(servers, greeted, strict=True) if not is_up]
    what = "the journal has no leader, so nothing can be stored or decided"
    if silent:
        up = len(servers) - len(silent)
        verb = "answers" if up == 1 else "answer"
        return f"{what}: {up} of the {len(servers)} servers that this process knows {verb}, not {', '.join(silent)}"
    if not _is_clustered(nc):
        return f"{what}: the broker answers, and it is no cluster, so its JetStream is switched off or stuck"
    if len(servers) == 1:
        return f"{what}: the one server that this process knows answers, too few others do"
    return f"{what}: the {len(servers)} servers that this process knows answer, but have not agreed on one"


async def explain_unavailable(nc: Client, error: JournalUnavailable) -> str:
    """Return why a connected broker can't be used, with the next step."""
    # An isolated server leaves some calls unanswered and refuses others.
    if isinstance(error, NoLeader) or (_is_clustered(nc) and isinstance(error.__cause__, TimeoutError)):
        return f"{await describe_missing_leader(nc)} ({error}); next step: {NEXT_STEP}"
    return f"{error}; its own log may say why"


def _is_clustered(nc: Client) -> bool:
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
