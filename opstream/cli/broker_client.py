"""How a process imports the client of the broker: as little as possible."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

_WEBSOCKETS: Final = ("ws:", "wss:")


def import_broker_client(servers: Sequence[str]) -> None:
    """Import nats-py without aiohttp, which it imports wherever that is installed, and needs only for WebSockets.

    That saves 7 MiB in each service, and a command much of its start. Not for a runner: the code of its
    actions may use nats-py over WebSockets.

    Args:
        servers: the broker's URLs.
    """
    if "aiohttp" in sys.modules or any(server.startswith(_WEBSOCKETS) for server in servers):
        return
    hidden: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    hidden["aiohttp"] = None  # as if it were not installed
    try:
        import nats.aio.transport  # noqa: F401
    finally:
        del hidden["aiohttp"]
