"""How a process imports the client of the broker: as little as possible."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

_WEBSOCKETS: Final = "aiohttp"


class _LoadedWhenUsed(ModuleType):
    """Stands for a module, which it imports when something of it is used."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        return getattr(import_module(self.__name__), name)


def import_broker_client() -> None:
    """Import nats-py without aiohttp, which it imports wherever that is installed, and needs only for WebSockets.

    That saves 7 to 10 MiB in each service, and a third of its imports' time. aiohttp is loaded once a connection, also
    one of an action's own, uses WebSockets, or an action imports it.
    """
    if _WEBSOCKETS in sys.modules or "nats" in sys.modules or find_spec(_WEBSOCKETS) is None:
        return
    hidden: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    hidden[_WEBSOCKETS] = None  # as if it were not installed
    try:
        from nats.aio import transport
    finally:
        del hidden[_WEBSOCKETS]
    vars(transport)[_WEBSOCKETS] = _LoadedWhenUsed(_WEBSOCKETS)
