"""The care of one NATS connection: bounded first connect, endless reconnects, and an end when the client gave up.

`Connection` makes the options for whoever opens the connection (this module, or FastStream's broker in the runner) and
knows whether it is up. nats-py closes a connection for good on a protocol error, and then nothing would ever work
again: `on_lost` is called, by default ending the process (docs/nats.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self, TypeVar

import nats.errors
from nats.aio.client import Client

from opstream_journal.errors import BrokerUnreachable, JournalUnavailable
from opstream_schemas.urls import hide_credentials

from .client_patches import limit_unacknowledged_time, tolerate_invalid_bytes
from .inbox import RequestInbox

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_CONNECT_TIMEOUT: Final = 2.0
_RECONNECT_WAIT: Final = 0.2
_PING_INTERVAL: Final = 5.0
_DRAIN_TIMEOUT: Final = 2.0
_FLUSH_TIMEOUT: Final = 1
_CANCEL_RETRY_DELAY: Final = 0.1
_START_RETRY_DELAY: Final = 0.25


def end_process(reason: str) -> None:
    """End the process at once with status 1. No clean-up: whatever it held is redelivered by the broker."""
    logger.critical("%s; ending the process", reason)
    logging.shutdown()
    os._exit(1)


class Connection:
    """One connection and its state.

    Args:
        name: shown in the broker's connection list.
        on_lost: called with the reason once the client gave the connection up.
    """

    def __init__(self, name: str, *, on_lost: Callable[[str], None] = end_process) -> None:
        self.name = name
        self.created_at = asyncio.get_running_loop().time()
        self._on_lost = on_lost
        self._nc: Client | None = None
        self._inbox: RequestInbox | None = None
        self._is_close_expected = False
        self._connected = asyncio.Event()
        self._reconnect_callbacks: list[Callable[[], None]] = []
        self._disconnect_callbacks: list[Callable[[], None]] = []

    @property
    def nc(self) -> Client:
        """The attached connection."""
        if self._nc is None:
            raise BrokerUnreachable("not connected yet")
        return self._nc

    @property
    def inbox(self) -> RequestInbox:
        """What asks over the attached connection."""
        if self._inbox is None:
            raise BrokerUnreachable("not connected yet")
        return self._inbox

    @property
    def is_connected(self) -> bool:
        """Whether publishing makes sense now. While it is not, publishing is refused rather than buffered."""
        return self._nc is not None and self._nc.is_connected

    def client_options(self) -> dict[str, Any]:
        """Connection options for nats-py, servers aside. FastStream's NatsBroker takes the same."""
        return {
            "name": self.name,
            "connect_timeout": _CONNECT_TIMEOUT,
            "reconnect_time_wait": _RECONNECT_WAIT,
            "max_reconnect_attempts": -1,
            "ping_interval": _PING_INTERVAL,
            "drain_timeout": _DRAIN_TIMEOUT,
            # No buffer: what is published while disconnected must not reach the broker after its caller gave up.
            # With one, nats-py also blocks every publish for 10 s, uncancelably, once it is full.
            "pending_size": 0,
            "error_cb": self._log_error,
            "disconnected_cb": self._handle_disconnect,
            "reconnected_cb": self._handle_reconnect,
            "closed_cb": self._handle_closed,
        }

    def attach(self, nc: Client) -> Self:
        """Take a connection that was opened with `options()`."""
        self._nc = nc
        tolerate_invalid_bytes(nc)
        self._inbox = RequestInbox(nc)
        if nc.is_connected:
            self._connected.set()
            limit_unacknowledged_time(nc)
        return self

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each reconnect; server-side pull requests, for one, are gone by then."""
        self._reconnect_callbacks.append(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the connection was lost: what was asked before will never be answered."""
        self._disconnect_callbacks.append(callback)

    def remove_disconnect_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` no more."""
        self._disconnect_callbacks.remove(callback)

    def remove_reconnect_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` no more."""
        self._reconnect_callbacks.remove(callback)

    async def wait_connected(self, timeout: float) -> bool:  # noqa: ASYNC109 - a wait with a bound is what this is
        """Wait until the connection is up, at most `timeout` seconds; whether it is."""
        if self.is_connected:
            return True
        self._connected.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            return False
        return self.is_connected

    async def sleep(self, seconds: float) -> None:
        """Pause between two tries."""
        await asyncio.sleep(seconds)

    def expect_close(self) -> None:
        """From now on a closed connection is what was asked for."""
        self._is_close_expected = True

    async def close(self) -> None:
        """Flush and close, in bounded time; never raises for a broker that is gone already."""
        self.expect_close()
        nc = self._nc
        if nc is None or nc.is_closed:
            return
        if nc.is_connected:
            # Not nats-py's drain: it waits 10 s for an answer, and cancellation does not stop it.
            try:
                await nc.flush(_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError) as error:
                logger.debug("flush failed: %s", error or type(error).__name__)
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                await nc.close()
        except (TimeoutError, OSError, RuntimeError) as error:
            # The broker reads nothing, so its socket can't be emptied, and ends with the process; or the socket is
            # closed already, which nats-py has not noticed yet and uvloop calls a RuntimeError.
            logger.debug("close failed: %s", error or type(error).__name__)
        # nats-py cancels this once, which is not enough (`end_task`): it would go on for ever, and the process with it.
        reconnecting = nc._reconnection_task  # noqa: SLF001 - nats-py has no name for it
        if reconnecting is not None:
            await end_task(reconnecting)

    async def _log_error(self, error: Exception) -> None:
        logger.warning("broker connection: %s", error or type(error).__name__)

    async def _handle_disconnect(self) -> None:
        self._connected.clear()
        if not self._is_close_expected:
            logger.warning("broker connection lost; reconnecting")
        if self._inbox is not None:
            self._inbox.fail_all()
        for callback in self._disconnect_callbacks:
            callback()

    async def _handle_reconnect(self) -> None:
        logger.warning("broker connection is back")
        self._connected.set()
        limit_unacknowledged_time(self.nc)
        for callback in self._reconnect_callbacks:
            callback()

    async def _handle_closed(self) -> None:
        self._connected.clear()
        if not self._is_close_expected:
            self._on_lost("the broker connection was closed for good")


async def connect(
    servers: Sequence[str],
    name: str,
    *,
    connect_timeout: float,
    on_lost: Callable[[str], None] = end_process,
    remedy: str = "set --nats",
) -> Connection:
    """Connect, waiting up to `connect_timeout` seconds for the broker to be there. `remedy`: how to name another one.

    Raises:
        BrokerUnreachable: it was not; the message says what to do.
    """
    if not servers:
        raise BrokerUnreachable("no NATS broker is named: set --nats")
    link = Connection(name, on_lost=on_lost)
    quiet = link.client_options() | {"error_cb": _ignore_error}
    client = Client()
    task = asyncio.create_task(client.connect(servers=list(servers), **quiet), name="connect")
    try:
        await asyncio.wait([task], timeout=connect_timeout)
    finally:
        await end_task(task)
    if task.cancelled():
        why = client.last_error
        link.expect_close()
        await client.close()
        raise unreachable_error(servers, connect_timeout, why, remedy=remedy) from why
    if (error := task.exception()) is not None:
        # nats-py tries for ever, so what it raises at once is about the addresses themselves.
        where = ", ".join(map(hide_credentials, servers))
        raise BrokerUnreachable(f"can't connect to {where}: {error}") from error
    client._error_cb = link._log_error  # noqa: SLF001 - nats-py has no setter; while connecting each refusal is noise
    return link.attach(client)


def unreachable_error(
    servers: Sequence[str], seconds: float, why: Exception | None = None, *, remedy: str = "set --nats"
) -> BrokerUnreachable:
    """The error for a broker that was not there in time; `why` is what the last try said."""
    where = ", ".join(map(hide_credentials, servers))
    said = f" (the last try: {why})" if isinstance(why, nats.errors.Error) else ""
    return BrokerUnreachable(
        f"no NATS broker answered at {where} within {seconds:g} s{said}: start one ('opstream broker') or {remedy}"
    )


async def retry_until_ready(link: Connection, step: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Do a step of a service's start, again and again while the broker is gone once more, or has no leader.

    A broker that is just being restarted, or a cluster that boots, takes connections before it can be worked with.

    Args:
        link: the connection.
        step: may be done any number of times.
        seconds: for connecting and all steps together, from the moment that the link was made.

    Raises:
        BrokerUnreachable: the time is over.
        JournalError: what else `step` raises, at once.
    """
    loop = asyncio.get_running_loop()
    until = link.created_at + seconds
    is_told = False
    while True:
        try:
            return await step()
        except JournalUnavailable as error:
            left = until - loop.time()
            if left <= 0:
                raise BrokerUnreachable(
                    f"the broker could not be used within {seconds:g} s: {error}; its own log may say why"
                ) from error
            if not is_told:
                logger.warning("the broker is not usable yet, trying on for %.3g s: %s", left, error)
                is_told = True
            await (link.sleep(_START_RETRY_DELAY) if link.is_connected else link.wait_connected(left))


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over.

    Once is not enough: `asyncio.wait_for`, which nats-py uses throughout, forgets a cancellation that comes in the same
    moment as what it waits for (before Python 3.12).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_RETRY_DELAY)


async def _ignore_error(_error: Exception) -> None:
    return None
