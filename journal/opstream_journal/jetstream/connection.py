"""One NATS connection: a first connect within a time limit, endless reconnects, a callback when it is lost for good.

`Connection` makes the options for the client that opens the connection (`connect`, or FastStream's broker of a
subscriber) and tracks its state. nats-py closes a connection for good on a protocol error, and nothing works any more.
Then `on_lost` is called, which by default ends the process (docs/nats.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from opstream_journal.broker_login import login_options
from opstream_journal.errors import BrokerTooOld, BrokerUnreachable, LoginNotPermitted
from opstream_journal.outage_log import BoundedLog, OutageLog, SharedOutageLog
from opstream_journal.storage_limit import RefusedPublishes
from opstream_journal.wire.client_patches import (
    DEFAULT_PREFIXES,
    SubjectPrefixes,
    call_api_at,
    limit_unacknowledged_time,
    socket_of,
    tolerate_invalid_bytes,
)
from opstream_journal.wire.connect_failures import ConnectFailures
from opstream_journal.wire.denials import Denials
from opstream_journal.wire.fast_parser import FastParser, Receive
from opstream_journal.wire.secure_client import SecureClient, explain_tls_error, tls_context, tried_server
from opstream_journal.wire.sender import Sender
from opstream_journal.wire.server_version import explain_old_server
from opstream_schemas.broker_access.logins import LoginNeed
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials, hide_credentials

from .inbox import RequestInbox
from .unanswered_publishes import UnansweredPublishes

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 2.0
_RECONNECT_WAIT: Final = 0.2
_PING_INTERVAL: Final = 5.0
_DRAIN_TIMEOUT: Final = 2.0
_FLUSH_TIMEOUT: Final = 1
_CANCEL_RETRY_DELAY: Final = 0.1


def end_process(reason: str) -> None:
    """End the process at once with status 1, without clean-up: the broker redelivers the messages that it held."""
    logger.critical("%s; ending the process", reason)
    logging.shutdown()
    os._exit(1)


class Connection:
    """One connection and its state.

    Args:
        name: shown in the broker's list of connections.
        on_lost: called with the reason after nats-py has closed the connection for good.
        prefixes: of inboxes and of JetStream's API, where the broker's permissions ask for others.
        need: which logins will do; None for any.
    """

    def __init__(
        self,
        name: str,
        *,
        on_lost: Callable[[str], None] = end_process,
        prefixes: SubjectPrefixes = DEFAULT_PREFIXES,
        need: LoginNeed | None = None,
    ) -> None:
        self.name = name
        self._need = need
        self.denials = Denials()
        self._prefixes = prefixes
        self.created_at = asyncio.get_running_loop().time()
        self._on_lost = on_lost
        self._complaints = BoundedLog(logger, "errors of a connection that stands")
        self._errors = OutageLog(logger, "the broker connection is lost, reconnecting", "the broker connection is back")
        self.pulls = SharedOutageLog(logger, "messages can't be pulled", "messages can be pulled again")
        """The outage that all pull consumers of this connection share."""
        self._nc: Client | None = None
        self._sender: Sender | None = None
        self._parser: FastParser | None = None
        self._inbox: RequestInbox | None = None
        self.is_close_expected = False
        self._connected = asyncio.Event()
        self._reconnect_callbacks: list[Callable[[], None]] = []
        self._disconnect_callbacks: list[Callable[[], None]] = []
        self.unanswered = UnansweredPublishes(asyncio.get_running_loop().time)
        """Publishes that the broker did not answer."""
        self.refused = RefusedPublishes(asyncio.get_running_loop().time)
        """Publishes that the broker refused for lack of room."""
        self.clock_skew = 0.0
        """Seconds that this machine's clock is ahead of the broker's, as `BrokerMonitor` measured it last."""

    @property
    def nc(self) -> Client:
        """The attached connection."""
        if self._nc is None:
            raise BrokerUnreachable("not connected yet")
        return self._nc

    @property
    def sender(self) -> Sender:
        """Publishes over the attached connection."""
        if self._sender is None:
            raise BrokerUnreachable("not connected yet")
        return self._sender

    @property
    def inbox(self) -> RequestInbox:
        """The inbox of the attached connection."""
        if self._inbox is None:
            raise BrokerUnreachable("not connected yet")
        return self._inbox

    @property
    def is_connected(self) -> bool:
        """Return True if the connection is up. While it is down, a publish fails instead of being buffered."""
        return self._nc is not None and self._nc.is_connected

    @property
    def keeps_pulls(self) -> bool:
        """Return True if the broker may pass messages to pulls of subscriptions that have ended (ADR 0055).

        A server that leads a consumer, and to which the client is not connected, can't see whether a login listens that
        has an account of its own. Which account it has is not told, so each login to a cluster counts.
        """
        info = self.nc._server_info  # noqa: SLF001 - nats-py shows neither of the two
        return bool(info.get("cluster") and info.get("auth_required"))

    @property
    def account(self) -> str:
        """The name of the account of this login, as the broker said it at the last connect; empty if it did not."""
        return self._nc.account if isinstance(self._nc, SecureClient) else ""

    def explain_wrong_login(self) -> str:
        """Return why this login can't do what the process is for, and the next step; empty if no role says so."""
        return "" if self._need is None else self._need.explain(self.account)

    def descriptors(self) -> list[int]:
        """Return the file descriptor of the connection's socket; none while it is down."""
        sock = None if self._nc is None else socket_of(self._nc)
        return [] if sock is None or sock.fileno() < 0 else [sock.fileno()]

    def client_options(self) -> dict[str, Any]:
        """Return the options for nats-py without the servers. FastStream's NatsBroker takes the same."""
        return {
            "name": self.name,
            "inbox_prefix": self._prefixes.inbox.encode(),
            "connect_timeout": _CONNECT_TIMEOUT,
            "reconnect_time_wait": _RECONNECT_WAIT,
            "max_reconnect_attempts": -1,
            "ping_interval": _PING_INTERVAL,
            "drain_timeout": _DRAIN_TIMEOUT,
            # No buffer: a message that is published while disconnected must not reach the broker after its caller gave
            # up. With a full buffer, nats-py also blocks every publish for 10 s, and cancellation does not stop it.
            "pending_size": 0,
            "error_cb": self._log_error,
            "disconnected_cb": self._handle_disconnect,
            "reconnected_cb": self._handle_reconnect,
            "closed_cb": self._handle_closed,
        }

    def attach(self, nc: Client) -> Self:
        """Attach a client that was connected with `client_options()`."""
        self._nc = nc
        tolerate_invalid_bytes(nc)
        if self._prefixes.api != DEFAULT_PREFIXES.api:
            call_api_at(nc, self._prefixes.api)
        self._sender = Sender(nc, self._prefixes.api)
        self._parser = FastParser.install(nc)
        self._inbox = RequestInbox(self._parser, self._sender, self.denials)
        if nc.is_connected:
            self._connected.set()
            limit_unacknowledged_time(nc)
        return self

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each reconnect. The broker has forgotten open requests, such as pulls, by then."""
        self._reconnect_callbacks.append(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each loss of the connection. Open requests are not answered any more."""
        self._disconnect_callbacks.append(callback)

    def remove_disconnect_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` no more."""
        self._disconnect_callbacks.remove(callback)

    def remove_reconnect_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` no more."""
        self._reconnect_callbacks.remove(callback)

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe, and hand each message to `receive`, which must not wait. Raises as nats-py's `subscribe`."""
        if self._parser is None:
            raise BrokerUnreachable("not connected yet")
        return await self._parser.subscribe(subject, receive)

    async def wait_connected(self, timeout: float) -> bool:  # noqa: ASYNC109 - a wait with a time limit
        """Wait at most `timeout` seconds until the connection is up. Return True if it is."""
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
        """Sleep between two tries."""
        await asyncio.sleep(seconds)

    def expect_close(self) -> None:
        """Announce that the connection will be closed on purpose, so that `on_lost` is not called."""
        self.is_close_expected = True

    async def close(self) -> None:
        """Flush and close within a few seconds. Does not raise if the broker is gone already."""
        self.expect_close()
        nc = self._nc
        if nc is None or nc.is_closed:
            return
        if nc.is_connected:
            self.sender.flush()
            # nats-py's drain waits 10 s for an answer, and cancellation does not stop it.
            try:
                await nc.flush(_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError) as error:
                logger.debug("flush failed: %s", str(error) or type(error).__name__)
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                await nc.close()
        except (TimeoutError, OSError, RuntimeError) as error:
            # Either the broker does not read, so the socket can't be emptied and ends with the process. Or the socket
            # is closed already, which nats-py has not noticed and uvloop reports as a RuntimeError.
            logger.debug("close failed: %s", str(error) or type(error).__name__)
        # nats-py cancels this task once, which is not enough (`end_task`): it and the process would go on for ever.
        reconnecting = nc._reconnection_task  # noqa: SLF001 - nats-py has no name for it
        if reconnecting is not None:
            await end_task(reconnecting)

    async def _log_error(self, error: Exception) -> None:
        text = explain_tls_error(error, tried_server(self.nc)) or str(error) or type(error).__name__
        self.denials.add_error(text)
        if self.is_connected:
            # The end of the connection follows, and `_handle_disconnect` says so.
            level = logging.DEBUG if isinstance(error, nats.errors.UnexpectedEOF | OSError) else logging.WARNING
            self._complaints.log(level, "broker connection: %s", text)
        elif not self.is_close_expected:
            self._errors.failed(text)  # nats-py reports each refused try to reconnect, five a second
            if (transport := self.nc._transport) is not None:  # noqa: SLF001 - nats-py has no name for it
                transport.close()  # type: ignore[no-untyped-call] # which nats-py leaves open if the broker refuses the login

    async def _handle_disconnect(self) -> None:
        self._connected.clear()
        if not self.is_close_expected:
            self._errors.failed("the broker has closed it, or the network is gone")
        if self._sender is not None and self._inbox is not None:
            self._sender.forget_unsent()
            self._inbox.fail_all()
        for callback in self._disconnect_callbacks:
            callback()

    async def _handle_reconnect(self) -> None:
        if too_old := explain_old_server(self.nc):
            # A cluster of several versions: what another server stored may be lost on this one.
            self._on_lost(too_old)
            return
        self._errors.recovered()
        self._connected.set()
        self.unanswered.clear()  # the broker may have been restarted
        self.refused.clear()
        limit_unacknowledged_time(self.nc)
        for callback in self._reconnect_callbacks:
            callback()

    async def _handle_closed(self) -> None:
        self._connected.clear()
        if not self.is_close_expected:
            self._on_lost("the broker connection was closed for good")


async def connect(
    servers: Sequence[str],
    name: str,
    *,
    connect_timeout: float,
    credentials: BrokerCredentials = NO_CREDENTIALS,
    on_lost: Callable[[str], None] = end_process,
    remedy: str = "set --nats",
    prefixes: SubjectPrefixes = DEFAULT_PREFIXES,
    need: LoginNeed | None = None,
) -> Connection:
    """Connect, and wait up to `connect_timeout` seconds for the broker. `remedy` says how to name another one.

    `credentials` come before those of a URL. `need` says which logins will do.

    Raises:
        InvalidCredentials: a file of the login or of TLS can't be read, or is none.
        BrokerUnreachable: no broker answered; the message says what to do.
        BrokerTooOld: the server that answered is older than opstream works with. A reconnect to such a server calls
            `on_lost`.
        LoginNotPermitted: the login is that of a role that is not in `need`.
    """
    if not servers:
        raise BrokerUnreachable("no NATS broker is named: set --nats")
    connection = Connection(name, on_lost=on_lost, prefixes=prefixes, need=need)
    client = SecureClient(credentials)
    failures = ConnectFailures(servers, client)
    quiet = connection.client_options() | {"error_cb": failures.keep}
    login = login_options(credentials, client)
    if credentials.has_tls:
        tls_context(credentials)
    task = asyncio.create_task(client.connect(servers=list(servers), **quiet, **login), name="connect")
    try:
        await asyncio.wait([task], timeout=connect_timeout)
    finally:
        await end_task(task)
    if task.cancelled():
        connection.expect_close()
        await client.close()
        raise BrokerUnreachable(failures.explain(connect_timeout, remedy)) from failures.cause
    if (error := task.exception()) is not None:
        # nats-py retries for ever, so an error that it raises at once is about the addresses.
        where = ", ".join(map(hide_credentials, servers))
        # An error about a URL may quote a part of its password.
        what = "percent-encode what is special in its user and password" if "…" in where else str(error)
        raise BrokerUnreachable(f"can't connect to {where}: {what}") from error
    if too_old := explain_old_server(client):
        connection.expect_close()
        await client.close()
        raise BrokerTooOld(too_old)
    client._error_cb = connection._log_error  # noqa: SLF001 - nats-py has no setter; errors of single tries are noise until now
    connection.attach(client)
    if need is not None:
        await _check_login(connection)
    return connection


async def _check_login(connection: Connection) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):  # the first call finds it, too
        await connection.nc.flush(_FLUSH_TIMEOUT)  # the broker names the account before it answers
    if wrong := connection.explain_wrong_login():
        await connection.close()
        raise LoginNotPermitted(wrong)


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended.

    Cancelling once is not enough: `asyncio.wait_for`, which nats-py uses throughout, loses a cancellation that arrives
    together with the result that it waits for (before Python 3.12).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_RETRY_DELAY)
