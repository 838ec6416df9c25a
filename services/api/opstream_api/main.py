"""Composition root of the API: it builds the service from settings, connects it and serves it.

An import connects nothing, registers nothing and reads no environment variables.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import uuid_utils
import uvloop
from litestar.types import ASGIApp

from opstream_journal import ActionCatalog, Connection, Journal, SnapshotStore, connect, retry_until_ready
from opstream_journal.access_log import AccessLog
from opstream_journal.jetstream.connection import end_task
from opstream_journal.keys.keks import open_ring
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.metrics.page import Metrics
from opstream_journal.provisioning.login_check import LoginCheck
from opstream_journal.provisioning.provision import check_provisioned
from opstream_journal.runtime.broker_monitor import BrokerMonitor
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.descriptors import raise_limit
from opstream_journal.runtime.health import listen
from opstream_journal.runtime.service import run_until_signal
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.setback_watch import SetbackWatch
from opstream_payloads.drivers import OpenedPayloads
from opstream_schemas.broker_access.logins import need_of_service
from opstream_schemas.broker_access.permissions import Role

from .access.access_control import AccessControl
from .access.authentication import principal_of
from .access.denials.access_recorder import AccessRecorder
from .access.limits.open_survey import open_survey, wait_for_survey
from .access_setup import open_access
from .actions.service import open_actions
from .app import create_app
from .asyncapi import action_asyncapi_document
from .bulk.service import open_bulk
from .children.desk import ChildDesk
from .dependencies import Dependencies
from .erasure.erasure_desk import ErasureDesk
from .http.caller_identity import CallerResolver
from .http.document_cache import DocumentCache
from .http.request_log import RequestLog
from .http.request_origin import HostPolicy
from .lists.operation_counts import OperationCounts
from .lists.operation_list import OperationList
from .openapi import openapi_document
from .operations.brief_waits import BriefWaits
from .operations.cancel import Canceler
from .operations.history import HistoryReader
from .operations.journal_capacity import JournalCapacity
from .operations.journal_follower import JournalFollower
from .operations.operation_cache import OperationCache
from .operations.retry import Retrier
from .operations.status import StatusReader
from .operations.submit import Submitter
from .operations.watch import WatchRegistry
from .pages.console_page import ConsolePage
from .pages.docs_page import load_docs_page
from .payloads.desk import PayloadDesk
from .payloads.service import open_payload_store, open_uploads
from .probes.health_port import HealthPort
from .queues.queue_positions import QueuePositions
from .queues.runner_presence import RunnerPresence
from .queues.waiting_reasons import WaitingReasons
from .request_meter import RequestMeter
from .schedules.service import Schedules, open_schedules
from .server import Server, make_server
from .settings import Settings
from .signals.signal_desk import SignalDesk
from .undelivered.service import open_undelivered

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; open requests then have `server.GRACE_SECONDS` to finish.

    Raises:
        JournalError: the port is in use, the broker can't be reached, or its streams differ. It says what to do.
        InvalidKek: the key-encryption keys can't be read, or are none.
    """
    uvloop.run(run_until_signal(partial(serve, settings)))


class ConnectedApi(NamedTuple):
    """A service that is connected to the broker and not served yet."""

    app: ASGIApp
    hosts: HostPolicy
    conditions: Conditions
    capacity: JournalCapacity
    watches: WatchRegistry
    """Stop it when the server begins to stop: that ends all requests that wait or stream."""
    brief_waits: BriefWaits
    schedules: Schedules


@asynccontextmanager
async def connected_api(
    settings: Settings, conditions: Conditions | None = None, metrics: Metrics | None = None
) -> AsyncIterator[ConnectedApi]:
    """Connect a service to the broker; disconnect it at the end.

    Args:
        settings: of the service.
        conditions: of the process; None for new ones.
        metrics: gets the instruments of the service; None for no page.

    Raises:
        JournalError, InvalidKek: as `run`.
    """
    conditions = conditions or Conditions()
    meter, ring = RequestMeter(), open_ring(settings.keks)
    async with AsyncExitStack() as stack:
        connection = await connect(
            settings.servers,
            "opstream-api",
            connect_timeout=settings.connect_timeout,
            credentials=settings.credentials,
            need=need_of_service(Role.API),
        )
        stack.push_async_callback(connection.close)
        max_msg_size = await retry_until_ready(
            connection, lambda: check_provisioned(connection), settings.connect_timeout
        )
        opened, body_limit = await open_payload_store(settings, connection, max_msg_size, now=_utc_now, new_id=_new_id)
        journal = Journal(
            connection, max_msg_size=max_msg_size, clock=time.monotonic, tracing=settings.tracing, confirms_leader=True
        )
        await journal.start()
        await stack.enter_async_context(
            BrokerMonitor(connection, conditions, LoginCheck(connection, Role.API)).running()
        )
        catalog = ActionCatalog(connection)
        stack.push_async_callback(catalog.stop)
        await retry_until_ready(connection, catalog.start, settings.connect_timeout)
        capacity = JournalCapacity(connection)
        stack.push_async_callback(capacity.stop)
        await retry_until_ready(connection, capacity.start, settings.connect_timeout)
        waiting_reasons, runners = await _watch_runners(stack, connection)
        cache, keys = OperationCache(), OperationKeys(connection, ring)
        locks = ResourceLocks(connection, journal)
        await locks.start()
        queue_positions = QueuePositions(locks, time.monotonic)
        snapshots = SnapshotStore(connection)
        status = StatusReader(
            journal=journal,
            snapshots=snapshots,
            catalog=catalog,
            queue_positions=queue_positions,
            waiting_reasons=waiting_reasons,
            cache=cache,
            documents=opened.documents,
            keys=keys,
            now=_utc_now,
        )
        watches = WatchRegistry(connection=connection, journal=journal, status=status)
        watches.start()
        _doubt_after_losses(connection, conditions, status, cache)
        brief_waits = BriefWaits(status=status, watches=watches, now=_utc_now)
        survey = open_survey(connection, settings.caller_open_operations)
        follower = JournalFollower(connection, status, watches, brief_waits, survey)
        stack.push_async_callback(end_task, asyncio.create_task(follower.run(), name="journal follower"))
        setback_watch = SetbackWatch(connection, conditions, now=_utc_now, on_look=cache.suspend)
        stack.push_async_callback(end_task, asyncio.create_task(setback_watch.run(), name="setback watch"))
        callers = CallerResolver(
            trusted=settings.trusted_proxies,
            identity_header=settings.identity_header,
            client_id_header=settings.client_id_header,
        )
        recorder = _start_recorder(stack, connection, callers)
        access = await stack.enter_async_context(open_access(settings, connection, status, conditions, recorder))
        await wait_for_survey(survey, settings.connect_timeout)
        public_url = settings.public_url.rstrip("/")
        hosts = HostPolicy.of(settings.allowed_hosts, bound_to=settings.host, public_url=public_url)
        submitter = Submitter(
            journal=journal,
            catalog=catalog,
            capacity=capacity,
            locks=locks,
            cache=cache,
            snapshots=snapshots,
            runners=runners,
            documents=opened.documents,
            keys=keys,
            now=_utc_now,
            clock=time.monotonic,
            new_id=_new_id,
            open_operations=survey.operations if survey is not None else None,
            refuse_unserved_after=settings.refuse_unserved_after,
        )
        stack.push_async_callback(await ChildDesk(connection, journal, submitter, body_limit).start())
        schedules = await open_schedules(stack, connection, submitter, status, access, recorder, now=_utc_now)
        canceler = Canceler(journal, status, cache, keys, now=_utc_now, clock=time.monotonic, new_id=_new_id)
        ids = None if access is None else access.operations.ids
        retrier = Retrier(
            journal=journal, status=status, submitter=submitter, keys=keys, ids=ids, documents=opened.documents
        )
        lists, counts = _open_index(settings, access, stack)
        dependencies = Dependencies(
            actions=await open_actions(stack, connection, catalog, settings, now=_utc_now),
            meter=meter,
            submitter=submitter,
            schedules=schedules.desk,
            status=status,
            watches=watches,
            brief_waits=brief_waits,
            canceler=canceler,
            retrier=retrier,
            signals=SignalDesk(journal, status, cache, keys, now=_utc_now, clock=time.monotonic, new_id=_new_id),
            erasure=ErasureDesk(status, keys, now=_utc_now),
            bulk=open_bulk(
                stack,
                connection,
                journal,
                lists,
                access,
                recorder,
                submitter=submitter,
                retrier=retrier,
                canceler=canceler,
                now=_utc_now,
                clock=time.monotonic,
                new_id=_new_id,
            ),
            payloads=PayloadDesk(opened.payloads, status),
            uploads=open_uploads(settings, opened, journal, capacity, access),
            history=HistoryReader(journal=journal, status=status, watches=watches),
            undelivered=await open_undelivered(stack, connection, recorder),
            lists=lists,
            counts=counts,
            capacity=capacity,
            conditions=conditions,
            access=access,
            access_recorder=recorder,
            callers=callers,
            openapi=DocumentCache(
                catalog,
                partial(
                    openapi_document,
                    public_url=public_url,
                    has_callbacks=bool(settings.callbacks.hosts),
                    has_access=access is not None,
                    has_index=settings.index is not None,
                    body_limit=body_limit,
                    upload_limit=settings.upload_limit,
                ),
            ),
            asyncapi=DocumentCache(catalog, action_asyncapi_document),
            docs_page=load_docs_page(),
            console_page=ConsolePage(),
            public_url=public_url,
            hosts=hosts,
            allowed_origins=settings.allowed_origins,
            cors_origins=settings.cors_origins,
            body_limit=body_limit,
            callback_policy=settings.callbacks,
            new_operation_id=_new_id,
            new_request_id=lambda: str(uuid_utils.uuid4()),
            request_log=_open_request_log(settings, stack),
            tracing=settings.tracing,
        )
        _add_instruments(metrics, dependencies, journal, opened)
        app = create_app(dependencies)
        yield ConnectedApi(app, hosts, conditions, capacity, watches, brief_waits, schedules)


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """As `run`, in the running loop and until the event is set."""
    raise_limit()
    health = HealthPort(settings)
    with listen(settings.host, settings.port, "--port") as sock:
        async with health.serving():
            await _serve(settings, sock, stopping, health)


async def _serve(settings: Settings, sock: socket.socket, stopping: asyncio.Event, health: HealthPort) -> None:
    server: Server | None = None
    task = asyncio.current_task()

    async def stop() -> None:
        await stopping.wait()
        if server is not None:
            server.should_exit = True
        elif task is not None:
            task.cancel()

    stop_task = asyncio.create_task(stop(), name="stop")
    try:
        async with connected_api(settings, health.conditions, health.metrics) as api:
            server = make_server(api.app, api.conditions, api.watches.stop)
            health.begin_work(api.capacity)
            server.should_exit = stopping.is_set()  # some of nats-py's waits lose a cancellation
            host, port = sock.getsockname()[:2]
            logger.info("serving on %s port %d", host, port)
            if api.hosts.is_any and not settings.public_url and not settings.allowed_hosts:
                logger.warning(
                    "any client decides which host Operation-Location names: set --public-url to the URL at which "
                    "clients reach this service, or --allowed-host to the names that it may be called by ('*' for any)"
                )
            await server.serve([sock])
            health.end_work()
    except asyncio.CancelledError:
        if server is not None:
            raise
        logger.info("stopped before the broker was reachable")
    finally:
        stop_task.cancel()


async def _watch_runners(stack: AsyncExitStack, connection: Connection) -> tuple[WaitingReasons, RunnerPresence]:
    reasons = WaitingReasons(connection, _utc_now, time.monotonic)
    await reasons.start()
    runners = RunnerPresence(connection, reasons, time.monotonic)
    stack.push_async_callback(runners.stop)
    return reasons, runners


def _doubt_after_losses(
    connection: Connection, conditions: Conditions, status: StatusReader, cache: OperationCache
) -> None:
    connection.on_disconnect(status.doubt_cached)
    connection.on_reconnect(cache.forget_ended)
    conditions.on_doubt(status.doubt_cached)
    conditions.on_doubt(cache.forget_ended)


def _start_recorder(stack: AsyncExitStack, connection: Connection, callers: CallerResolver) -> AccessRecorder:
    recorder = AccessRecorder(AccessLog(connection), callers, principal_of=principal_of)
    recorder.start()
    stack.push_async_callback(recorder.stop)
    return recorder


def _open_request_log(settings: Settings, stack: AsyncExitStack) -> RequestLog | None:
    if not settings.has_request_log or not RequestLog.is_enabled():
        return None
    request_log = RequestLog()
    stack.callback(request_log.flush)
    return request_log


def _add_instruments(
    metrics: Metrics | None, dependencies: Dependencies, journal: Journal, opened: OpenedPayloads
) -> None:
    if metrics is None:
        return
    metrics.add(
        *dependencies.meter.instruments,
        *journal.meter.instruments,
        *dependencies.capacity.instruments,
        *dependencies.watches.instruments,
        *dependencies.uploads.meter.instruments,
        dependencies.erasure.erasures,
    )
    if opened.payloads is not None:
        metrics.add(*opened.payloads.meter.instruments)


def _open_index(
    settings: Settings, access: AccessControl | None, stack: AsyncExitStack
) -> tuple[OperationList | None, OperationCounts | None]:
    """Return what answers lists and counts. What an index needs is loaded only where there is one."""
    if settings.index is None:
        return None, None
    from .lists.index_access import open_index

    key = b"" if access is None else access.operations.ids.derived_key(b"list cursor")
    lists, counts = open_index(settings.index, key)
    stack.callback(lists.stop)
    stack.callback(counts.stop)
    return lists, counts


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())
