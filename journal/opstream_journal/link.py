"""The care of one NATS connection: bounded first connect, endless reconnects, and an end when the client gave up.

`Link` makes the options for whoever opens the connection (this module, or FastStream's broker in the runner) and
knows whether it is up. nats-py closes a connection for good on a protocol error, and then nothing would ever work
again: `on_lost` is called, by default ending the process (nats-facts.md, nats-py 2.16).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import nats
from nats.aio.client import Client

from .errors import BrokerUnreachable

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 2.0
_RECONNECT_WAIT: Final = 0.2
_PING_INTERVAL: Final = 5.0
_DRAIN_TIMEOUT: Final = 2.0


def end_process(reason: str) -> None:
    """End the process at once with status 1. No clean-up: whatever it held is redelivered by the broker."""
    logger.critical("%s; ending the process", reason)
    logging.shutdown()
    os._exit(1)


class Link:
    """One connection and its state.

    Args:
        name: shown in the broker's connection list.
        on_lost: called with the reason once the client gave the connection up.
    """

    def __init__(self, name: str, *, on_lost: Callable[[str], None] = end_process) -> None:
        self.name = name
        self._on_lost = on_lost
        self._nc: Client | None = None
        self._closing = False
        self._is_up = asyncio.Event()
        self._reconnected: list[Callable[[], None]] = []

    @property
    def nc(self) -> Client:
        """The attached connection."""
        if self._nc is None:
            raise BrokerUnreachable("not connected yet")
        return self._nc

    @property
    def is_up(self) -> bool:
        """Whether publishing makes sense now. While it is not, publishing is refused rather than buffered."""
        return self._nc is not None and self._nc.is_connected

    def options(self) -> dict[str, Any]:
        """Connection options for nats-py, servers aside. FastStream's NatsBroker takes the same."""
        return {
            "name": self.name,
            "connect_timeout": _CONNECT_TIMEOUT,
            "reconnect_time_wait": _RECONNECT_WAIT,
            "max_reconnect_attempts": -1,
            "ping_interval": _PING_INTERVAL,
            "drain_timeout": _DRAIN_TIMEOUT,
            "error_cb": self._note_error,
            "disconnected_cb": self._note_down,
            "reconnected_cb": self._note_up,
            "closed_cb": self._note_closed,
        }

    def attach(self, nc: Client) -> Self:
        """Take a connection that was opened with `options()`."""
        self._nc = nc
        if nc.is_connected:
            self._is_up.set()
        return self

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each reconnect; server-side pull requests, for one, are gone by then."""
        self._reconnected.append(callback)

    async def wait_up(self, timeout: float) -> bool:  # noqa: ASYNC109 - a wait with a bound is what this is
        """Wait until the connection is up, at most `timeout` seconds; whether it is."""
        if self.is_up:
            return True
        self._is_up.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._is_up.wait()
        except TimeoutError:
            return False
        return self.is_up

    async def rest(self, seconds: float) -> None:
        """Pause between two tries."""
        await asyncio.sleep(seconds)

    def expect_close(self) -> None:
        """From now on a closed connection is what was asked for."""
        self._closing = True

    async def close(self) -> None:
        """Flush and close; never raises for a broker that is gone already."""
        self.expect_close()
        if self._nc is None or self._nc.is_closed:
            return
        if self._nc.is_connected:
            try:
                await self._nc.drain()
            except (nats.errors.Error, TimeoutError, OSError) as error:
                logger.debug("drain failed: %s", error)
        if not self._nc.is_closed:
            await self._nc.close()

    async def _note_error(self, error: Exception) -> None:
        logger.warning("broker connection: %s", error or type(error).__name__)

    async def _note_down(self) -> None:
        self._is_up.clear()
        if not self._closing:
            logger.warning("broker connection lost; reconnecting")

    async def _note_up(self) -> None:
        logger.warning("broker connection is back")
        self._is_up.set()
        for callback in self._reconnected:
            callback()

    async def _note_closed(self) -> None:
        self._is_up.clear()
        if not self._closing:
            self._on_lost("the broker connection was closed for good")


async def connect(
    servers: Sequence[str], name: str, *, connect_timeout: float, on_lost: Callable[[str], None] = end_process
) -> Link:
    """Connect, waiting up to `connect_timeout` seconds for the broker to be there.

    Raises:
        BrokerUnreachable: it was not; the message says what to do.
    """
    link = Link(name, on_lost=on_lost)
    quiet = link.options() | {"error_cb": _say_nothing}
    client = Client()
    try:
        async with asyncio.timeout(connect_timeout):
            await client.connect(servers=list(servers), **quiet)
    except (TimeoutError, nats.errors.Error, OSError) as error:
        link.expect_close()
        await client.close()
        raise unreachable(servers, connect_timeout) from error
    client._error_cb = link._note_error  # noqa: SLF001 - nats-py has no setter; while connecting each refusal is noise
    return link.attach(client)


def unreachable(servers: Sequence[str], seconds: float) -> BrokerUnreachable:
    """The error for a broker that was not there in time."""
    where = ", ".join(servers)
    return BrokerUnreachable(
        f"no NATS broker answered at {where} within {seconds:g} s: start one ('opstream broker') or set --nats"
    )


async def _say_nothing(_error: Exception) -> None:
    return None
