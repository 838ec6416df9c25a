"""FastStream's broker for events, on a connection of the journal.

FastStream's own connection tries for ever at the start, and freezes the event loop once it is closed for good.
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
from opstream_journal.wire.client_patches import DEFAULT_PREFIXES, SubjectPrefixes
from opstream_schemas.broker_access.logins import LoginNeed
from opstream_schemas.broker_access.permissions import Role
from opstream_schemas.errors import InvalidName
from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

from .caller import caller_place, errors_at
from .errors import InvalidSubscription
from .subscription import check_prefix

logger = logging.getLogger(__name__)

_DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"


def _jitter() -> float:
    return random.uniform(MIN_JITTER_FACTOR, 1.0)  # noqa: S311 - it need not be unpredictable


def _check_login(credentials: BrokerCredentials) -> None:
    try:
        credentials.check()
    except InvalidName as error:
        raise InvalidSubscription(str(error)) from None


def _server_urls(servers: str | Sequence[str]) -> tuple[str, ...]:
    urls = servers.split(",") if isinstance(servers, str) else servers
    named = tuple(url.strip() for url in urls if url.strip())
    if not named:
        raise InvalidSubscription(f"{servers!r} names no broker: write e.g. {_DEFAULT_SERVER!r}")
    return named


class EventsBroker(NatsBroker):
    """A NatsBroker that `subscribe` works with; the rest of FastStream works on it too.

    Args:
        servers: URLs of the broker or of a cluster's members, as a list or in one text, separated by commas.
            `nats://user:password@host` logs in.
        credentials: of the login, better than in the URL; `BrokerCredentials.from_variables(os.environ)` takes the
            variables of the services.
        connect_timeout: seconds until the first connection must be made. A later outage may last for any time.
        graceful_timeout: seconds that handlers have to end when the process stops.
        name: of the connection, in the broker's list.
        inbox_prefix: of the subjects on which answers come, where the permissions of the broker name another one.
        api_prefix: of JetStream's API, where this account imports it under another name (docs/events.md, Permissions).
        on_lost: called with the reason when the connection is closed for good, or when a subscriber fails and there is
            no FastStream application to stop. By default it ends the process with status 1.
        jitter: returns the share of a backoff to wait, from 0.5 to 1.
        clock: monotonic seconds.
        options: FastStream's own (`middlewares`, `logger`, `serializer`, `routers`, …), except those of the connection.

    Raises:
        InvalidSubscription: there is no server, the credentials are several logins, or the timeout or a prefix is not
            valid.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = _DEFAULT_SERVER,
        *,
        credentials: BrokerCredentials = NO_CREDENTIALS,
        connect_timeout: float = 30.0,
        graceful_timeout: float | None = 15.0,
        name: str = "opstream-subscriber",
        inbox_prefix: str = DEFAULT_PREFIXES.inbox,
        api_prefix: str = DEFAULT_PREFIXES.api,
        on_lost: Callable[[str], None] = end_process,
        jitter: Callable[[], float] = _jitter,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,  # noqa: ANN401 - FastStream's own
    ) -> None:
        with errors_at(caller_place()):
            _check_login(credentials)
            self._servers = _server_urls(servers)
            if not (isinstance(connect_timeout, int | float) and connect_timeout > 0):
                raise InvalidSubscription(f"connect_timeout {connect_timeout!r} must be more than 0 seconds")
            self._prefixes = SubjectPrefixes(
                check_prefix(inbox_prefix, "inbox_prefix"), check_prefix(api_prefix, "api_prefix")
            )
        self._credentials = credentials
        super().__init__(list(self._servers), graceful_timeout=graceful_timeout, **options)
        self.connect_timeout = connect_timeout
        self.jitter = jitter
        self.clock = clock
        self._client_name = name
        self._on_lost = on_lost
        self.durables: list[str] = []
        """The names of the durables that have a handler."""
        self._journal_connection: Connection | None = None
        self._failure: BaseException | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def journal_connection(self) -> Connection:
        """The connection.

        Raises:
            RuntimeError: the broker is not started.
        """
        if self._journal_connection is None:
            raise RuntimeError("the broker is not connected: start it first")
        return self._journal_connection

    def stop_with_error(self, error: BaseException) -> None:
        """Stop the application because a subscriber failed; `stop` then raises the error."""
        logger.critical("%s; ending the process", error)
        self._failure = self._failure or error
        self.stop_application()

    def stop_subscriber(self, subscriber: SubscriberUsecase[Any]) -> None:
        """Stop one subscriber in the background."""
        task = asyncio.create_task(subscriber.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def stop_application(self) -> None:
        """Stop the FastStream application; without one, end the process if a subscriber failed."""
        app = self.context.get("app")
        if app is not None:
            app.exit()
        elif self._failure is not None:
            # Without an application, this process can't stop in order. The broker redelivers its events later.
            self._on_lost(str(self._failure))

    async def start(self) -> None:
        """Connect, create or check the durables, and start the subscribers.

        Raises:
            BrokerUnreachable: there was no connection within `connect_timeout`.
            LoginNotPermitted: the login is that of another role, or for another durable.
            Drifted: a durable exists with another configuration.
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
        """Stop the subscribers, release unfinished events, close the connection.

        Raises:
            JournalError: a subscriber failed with it.
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
        need = None
        if self.durables:
            process = f"the subscriber {', '.join(self.durables)}"
            need = LoginNeed(process=process, roles=(Role.SUBSCRIBER,), durables=tuple(self.durables))
        self._journal_connection = await connect(
            self._servers,
            self._client_name,
            credentials=self._credentials,
            connect_timeout=self.connect_timeout,
            on_lost=self._on_lost,
            remedy="give EventsBroker its URL",
            prefixes=self._prefixes,
            need=need,
        )
        self.config.connect(self._journal_connection.nc)
        return self._journal_connection.nc

    async def _disconnect(self) -> None:
        connection, self._journal_connection = self._journal_connection, None
        self._connection = None
        self.config.disconnect()
        if connection is not None:
            await connection.close()
