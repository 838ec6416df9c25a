"""Makes the streams of a broker that has just been started."""

from __future__ import annotations

from typing import Final

from opstream_journal import BrokerRefused, Connection, retry_until_ready
from opstream_journal.errors import NoLeader
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing

_NO_PEERS: Final = 10005
"""JetStream's `err_code` while the servers of a cluster don't know each other yet, or one has just left."""


async def provision_started(link: Connection, sizing: Sizing, within: float) -> None:
    """Make all streams, and try again while servers boot, find each other or elect leaders.

    Args:
        link: the connection, from whose creation `within` seconds count.
        sizing: of the streams.
        within: seconds.
    """

    async def step() -> None:
        try:
            await provision(link, sizing)
        except BrokerRefused as refused:
            if refused.err_code != _NO_PEERS:
                raise
            raise NoLeader(str(refused)) from refused

    await retry_until_ready(link, step, within)
