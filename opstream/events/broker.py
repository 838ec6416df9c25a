"""FastStream's broker for events, on a connection with the journal's care. Callers: services that subscribe.

FastStream's own connection knows no end of its first try, and freezes the event loop once it is closed for good;
`opstream_journal.Link` bounds the first, and ends the process with a reason in the second case.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from faststream._internal.endpoint.subscriber import SubscriberUsecase
from faststream.nats import NatsBroker

from opstream_journal import Connection, connect, end_process
from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR

from .errors import InvalidSubscription

logger = logging.getLogger(__name__)

_DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"


def _jitter() -> float:
    return random.uniform(MIN_JITTER_FACTOR, 1.0)  # noqa: S311 - nothing depends on it being unforeseeable


class EventsBroker(NatsBroker):
    """A NatsBroker that `subscribe` works with; everything else of FastStream works on it, too.

    Args:
        servers: URLs of the broker or of a cluster's members, in one text with commas between them or as a list.
            `nats://user:password@host` logs in.
        connect_timeout: seconds that the broker may take to be there at the start. Later it may be away for ever.
        graceful_timeout: seconds that handlers have to end once the process is told to.
        name: in the broker's list of connections.
        on_lost: called with the reason once the connection is closed for good, or a subscriber can't go on and there
            is no FastStream application that could be stopped. By default it ends the process with status 1.
        jitter: from 0.5 to 1, the part of a backoff that is waited.
        clock: monotonic seconds.
        options: FastStream's own (`middlewares`, `logger`, `serializer`, `routers`, …), those of the connection aside.

    Raises:
        InvalidSubscription: no broker is named, or the timeout is none.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = _DEFAULT_SERVER,
        *,
        connect_timeout: float = 30.0,
        graceful_timeout: float | None = 15.0,
        name: str = "opstream-subscriber",
        on_lost: Callable[[str], None] = end_process,
        jitter: Callable[[], float] = _jitter,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,  # noqa: ANN401 - FastStream's own
    ) -> None:
        given = servers.split(",") if isinstance(servers, str) else servers
        self._servers = tuple(one.strip() for one in given if one.strip())
        if not self._servers:
            raise InvalidSubscription(f"{servers!r} names no broker: write e.g. {_DEFAULT_SERVER!r}")
        if not (isinstance(connect_timeout, int | float) and connect_timeout > 0):
            raise InvalidSubscription(f"connect_timeout {connect_timeout!r} must be more than 0 seconds")
        super().__init__(list(self._servers), graceful_timeout=graceful_timeout, **options)
        self.connect_timeout = connect_timeout
        self.jitter = jitter
        self.clock = clock
        self._client_name = name
        self._on_lost = on_lost
        self.durables: list[str] = []
        """Those that have a handler."""
        self._journal_connection: Connection | None = None
        self._failure: BaseException | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def journal_connection(self) -> Connection:
        """The connection, once there is one."""
        if self._journal_connection is None:
            raise RuntimeError("the broker is not connected: start it first")
        return self._journal_connection

    def stop_with_error(self, error: BaseException) -> None:
        """A subscriber can't go on: stop everything in order, and raise the reason from `stop`."""
        logger.critical("%s; ending the process", error)
        self._failure = self._failure or error
        self.end(None)

    def end(self, one: SubscriberUsecase[Any] | None) -> None:
        """Stop one subscriber, or the application."""
        if one is not None:
            task = asyncio.create_task(one.stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
            return
        app = self.context.get("app")
        if app is not None:
            app.exit()
        elif self._failure is not None:
            # Nobody is there to stop in order; what is delivered comes again, to whoever is there then.
            self._on_lost(str(self._failure))

    async def start(self) -> None:
        """Connect, check or make the durables, and begin.

        Raises:
            BrokerUnreachable: no broker is there within `connect_timeout`.
            Drifted: a durable exists, and differs from what was subscribed to.
            NotProvisioned: the broker has no journal.
        """
        try:
            await super().start()
        except BaseException:
            try:
                await super(NatsBroker, self).stop()
            finally:
                await self._disconnect()
            raise

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Stop the subscribers, give back what is not done, close the connection.

        Raises:
            JournalError: why a subscriber could not go on, if one could not.
        """
        if self._journal_connection is None:
            return
        self._journal_connection.expect_close()
        try:
            await super(NatsBroker, self).stop(exc_type, exc_val, exc_tb)
        finally:
            await self._disconnect()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _connect(self) -> Any:  # noqa: ANN401 - nats-py's client
        self._journal_connection = await connect(
            self._servers,
            self._client_name,
            connect_timeout=self.connect_timeout,
            on_lost=self._on_lost,
            remedy="give EventsBroker its URL",
        )
        self.config.connect(self._journal_connection.nc)
        return self._journal_connection.nc

    async def _disconnect(self) -> None:
        link, self._journal_connection = self._journal_connection, None
        self._connection = None
        self.config.disconnect()
        if link is not None:
            await link.close()
