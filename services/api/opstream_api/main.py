"""Composition root of the API: settings in, a running service out. Called by the `opstream` command.

Nothing is connected, registered or read from the environment at import.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

import uuid_utils
import uvloop
from litestar.types import ASGIApp

from opstream_journal import ActionCatalog, Drifted, Journal, SnapshotStore, connect, retry_until_ready
from opstream_journal.provisioning.provision import check_provisioned
from opstream_journal.provisioning.topology import EVENT_OVERHEAD
from opstream_journal.runtime.health import listen
from opstream_journal.stores.resource_locks import ResourceLocks

from .app import create_app
from .asyncapi import action_asyncapi_document
from .dependencies import Dependencies
from .http.caller_identity import CallerResolver
from .http.docs_page import load_docs_page
from .openapi import openapi_document
from .openapi.document_cache import DocumentCache
from .operations.cancel import Canceler
from .operations.history import History
from .operations.journal_capacity import JournalCapacity
from .operations.operation_cache import OperationCache
from .operations.queue_positions import QueuePositions
from .operations.status import StatusReader
from .operations.submit import Submitter
from .operations.watch import WatchRegistry
from .server import Server, make_server
from .settings import Settings

logger = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; open requests then have `server.GRACE` seconds to finish.

    Raises:
        JournalError: the port is taken, or the broker can't be reached, lacks something or differs; the message says
            what to do.
    """
    with listen(settings.host, settings.port, "--port") as sock:
        uvloop.run(_serve(settings, sock))


class ConnectedApi(NamedTuple):
    """A service that is connected and not served yet."""

    app: ASGIApp
    watches: WatchRegistry
    """To be stopped when the server begins to stop: that answers, or ends, all that is held open."""


@asynccontextmanager
async def connected_api(settings: Settings) -> AsyncIterator[ConnectedApi]:
    """The service, connected to the broker; disconnected at the end.

    Raises:
        JournalError: see `run`.
    """
    async with AsyncExitStack() as stack:
        link = await connect(settings.servers, "opstream-api", connect_timeout=settings.connect_timeout)
        stack.push_async_callback(link.close)
        max_msg_size = await retry_until_ready(link, lambda: check_provisioned(link), settings.connect_timeout)
        _check_body_limit(settings.body_limit, max_msg_size)
        journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
        await journal.start()
        catalog = ActionCatalog(link)
        stack.push_async_callback(catalog.stop)
        await retry_until_ready(link, catalog.start, settings.connect_timeout)
        capacity = JournalCapacity(link)
        stack.push_async_callback(capacity.stop)
        await retry_until_ready(link, capacity.start, settings.connect_timeout)
        cache = OperationCache()
        holds = ResourceLocks(link, journal)
        await holds.start()
        places = QueuePositions(holds, time.monotonic)
        status = StatusReader(
            journal=journal, view=SnapshotStore(link), catalog=catalog, places=places, cache=cache, now=_utc_now
        )
        watchers = WatchRegistry(link=link, journal=journal, status=status)
        watchers.start()
        public_url = settings.public_url.rstrip("/")
        app = create_app(
            Dependencies(
                submitter=Submitter(
                    journal=journal,
                    catalog=catalog,
                    capacity=capacity,
                    holds=holds,
                    cache=cache,
                    now=_utc_now,
                    clock=time.monotonic,
                    new_id=_new_id,
                ),
                status=status,
                watches=watchers,
                canceler=Canceler(
                    journal=journal, status=status, cache=cache, now=_utc_now, clock=time.monotonic, new_id=_new_id
                ),
                history=History(journal=journal, status=status, watchers=watchers),
                capacity=capacity,
                callers=CallerResolver(
                    trusted=settings.trusted_proxies,
                    identity_header=settings.identity_header,
                    client_id_header=settings.client_id_header,
                ),
                openapi=DocumentCache(
                    catalog,
                    partial(openapi_document, public_url=public_url, is_calling_back=bool(settings.callbacks.hosts)),
                ),
                asyncapi=DocumentCache(catalog, action_asyncapi_document),
                docs_page=load_docs_page(),
                public_url=public_url,
                body_limit=settings.body_limit,
                callback_policy=settings.callbacks,
                new_operation_id=_new_id,
                new_request_id=_new_request_id,
            )
        )
        yield ConnectedApi(app, watchers)


async def _serve(settings: Settings, sock: socket.socket) -> None:
    server: Server | None = None
    task = asyncio.current_task()

    def end() -> None:
        if server is not None:
            server.should_exit = True
        elif task is not None:
            task.cancel()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        async with connected_api(settings) as serving:
            server = make_server(serving.app, serving.watches.stop)
            host, port = sock.getsockname()[:2]
            logger.info("serving on %s port %d", host, port)
            await server.serve([sock])
    except asyncio.CancelledError:
        if server is not None:
            raise
        logger.info("told to stop before the broker was there")


def _check_body_limit(body_limit: int, max_msg_size: int) -> None:
    needed = body_limit + EVENT_OVERHEAD
    if 0 <= max_msg_size < needed:
        raise Drifted(
            f"the journal takes events of {max_msg_size} bytes, bodies of {body_limit} need {needed}: "
            f"run 'opstream provision --max-msg-size {needed} --update' or lower --max-body"
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())


def _new_request_id() -> str:
    return str(uuid_utils.uuid4())
