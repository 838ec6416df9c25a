"""A process that consists of loops over one connection: from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from opstream_journal.jetstream.connection import Connection, connect, end_task
from opstream_journal.jetstream.readiness import retry_until_ready
from opstream_journal.metrics.page import Metrics
from opstream_journal.provisioning.login_check import LoginCheck
from opstream_journal.provisioning.provision import check_provisioned
from opstream_schemas.broker_access.logins import need_of_service
from opstream_schemas.broker_access.permissions import Role
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

from .broker_monitor import BrokerMonitor
from .conditions import Conditions
from .health import HealthServer, listen_for_health

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 5.0


class ServiceLoop(Protocol):
    """One loop of a process. A process is only useful while all its loops run."""

    @property
    def is_ready(self) -> bool:
        """Return True if it does its job now."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...


Serve = Callable[[asyncio.Event], Awaitable[None]]
"""A service: works until the event is set, then stops cleanly. It raises what keeps it from its work."""


async def run_until_signal(serve: Serve, *, on_hangup: Callable[[], None] | None = None) -> None:
    """Run a service until it ends, or until SIGTERM or SIGINT stops it.

    Args:
        serve: the service; its exceptions are raised.
        on_hangup: called for each SIGHUP; None leaves the signal's default.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await serve(stopping)


async def run_until_set(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run work until it ends, or until the event is set: then it is cancelled. Its exceptions are raised."""
    working = asyncio.create_task(work, name="work")
    waiting = asyncio.create_task(stopping.wait(), name="stop")
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not working.done():
            logger.info("stopping")
            await cancel_all(working)
    if not working.cancelled():
        await working


async def run_service(
    name: str,
    compose: Callable[[Connection, int], Awaitable[Sequence[ServiceLoop]]],
    *,
    role: Role,
    servers: Sequence[str],
    connect_timeout: float,
    credentials: BrokerCredentials = NO_CREDENTIALS,
    health_host: str = "",
    health_port: int,
    conditions: Conditions | None = None,
    metrics: Metrics | None = None,
) -> None:
    """Connect, check the provisioning, and run loops until the first one ends.

    Args:
        name: of the connection.
        compose: makes the loops from the connection and the journal's `max_msg_size` in bytes.
        role: of the service at the broker, for which its login is checked.
        servers: NATS URLs of one cluster.
        connect_timeout: seconds to wait for the broker at the start.
        credentials: of the login at the broker.
        health_host: address to serve health on; empty for every address, and then /metrics for this machine only.
        health_port: TCP port for /healthz, /readyz and /metrics; 0 for none.
        conditions: to which the loops report what is wrong around them; /readyz shows it.
        metrics: what /metrics shows, to which `compose` adds; None for no such path.

    Raises:
        JournalError: the broker can't be reached, lacks something or differs, the login is another role's, the health
            port is taken, or a loop raised it.
    """
    sock = listen_for_health(health_host, health_port) if health_port else None
    loops: list[ServiceLoop] = []
    conditions = conditions or Conditions()
    health = None
    if sock is not None:
        health = HealthServer(
            sock,
            lambda: bool(loops) and all(one.is_ready for one in loops),
            conditions,
            metrics=metrics,
            is_address_chosen=bool(health_host),
        )
        health.start()
    try:
        need = need_of_service(role)
        connection = await connect(servers, name, connect_timeout=connect_timeout, credentials=credentials, need=need)
        login = LoginCheck(connection, role)
        try:
            max_msg_size = await retry_until_ready(connection, lambda: check_provisioned(connection), connect_timeout)
            await retry_until_ready(connection, login.check, connect_timeout)
            loops += await compose(connection, max_msg_size)
            async with BrokerMonitor(connection, conditions, login).running():
                await run_until_first_ends(*(one.run() for one in loops))
        finally:
            await connection.close()
    finally:
        if health is not None:
            await health.stop()


async def run_until_first_ends(*loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until the first one ends, or until cancelled. Then cancel the others and wait for their clean-up.

    Raises:
        Exception: raised by the loop that ended.
    """
    tasks = [asyncio.create_task(one) for one in loops]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_all(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def cancel_all(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks once, and wait until they have ended.

    A task that takes more than a few seconds is cancelled repeatedly: some of nats-py's waits lose a cancellation.
    """
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_STOP_TIMEOUT)
    for task in tasks:
        await end_task(task)
