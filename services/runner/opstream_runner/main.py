"""The runner's composition root: it builds a runner from settings and serves until a signal.

`PullConsumer` delivers the messages (docs/adr/0002), and core subscriptions on the same connection the notifications.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import uuid_utils
from nats.aio.msg import Msg

from opstream_journal import Connection, Drifted, Journal, connect, retry_until_ready
from opstream_journal.keys.keks import NO_KEK, KekRing, open_ring
from opstream_journal.keys.operation_keys import OperationKeys
from opstream_journal.metrics.page import Metrics
from opstream_journal.outage_log import BoundedLog
from opstream_journal.provisioning.login_check import LoginCheck
from opstream_journal.provisioning.provision import check_provisioned
from opstream_journal.provisioning.topology import EVENT_OVERHEAD, event_room
from opstream_journal.runtime.broker_monitor import BrokerMonitor
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.health import HealthServer, listen_for_health
from opstream_payloads.drivers import open_payloads
from opstream_schemas import subjects
from opstream_schemas.broker_access.logins import need_of_service
from opstream_schemas.broker_access.permissions import Role, access_of
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import CancelRequested, Failed
from opstream_schemas.names import Kind
from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR

from .authoring.action import Action
from .authoring.action_modules import import_notice, load_actions
from .containment.forks import keep_from_forks, prepare_forks
from .containment.log_guard import protect_logs
from .dependencies import RunnerDependencies
from .errors import InvalidAction
from .event_loop import run_until_complete
from .runner import Runner
from .settings import Settings

logger = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_NOTIFYING_EVENTS: Final = (CancelRequested, Failed)
"""The events that a running attempt must see at once: each ends its operation, or asks for that, from outside."""


def run(settings: Settings) -> None:
    """Offer the actions of the settings' modules, and run their attempts until SIGTERM or SIGINT.

    Raises:
        InvalidAction: a module can't be imported or defines no valid action; or an action is confidential, and there
            is no key-encryption key.
        InvalidKek: the key-encryption keys can't be read, or are none.
        JournalError: the health port is in use; the broker can't be reached, or is not provisioned as it should be;
            a consumer was deleted; or an action's types changed, and its version did not.
    """
    prepare_forks()
    protect_logs()
    actions = load_actions(settings.modules, importing=import_notice)
    ring = open_ring(settings.keks)
    _check_confidential(actions, has_keks=ring is not None)
    with contextlib.ExitStack() as stack:
        sock = None
        if settings.health_port:
            # First, so that a second runner on this port does not announce its actions and then die.
            sock = stack.enter_context(listen_for_health(settings.health_host, settings.health_port))
            # A forked process that outlives this one must not keep the port from the next runner.
            stack.enter_context(keep_from_forks(lambda: [sock.fileno()]))
        run_until_complete(_serve(settings, actions, sock, ring))


async def _serve(
    settings: Settings, actions: list[Action[Any, Any]], sock: socket.socket | None, ring: KekRing | None
) -> None:
    loop, serving = asyncio.get_running_loop(), asyncio.current_task()
    conditions = Conditions()
    access = [access_of(action.spec) for action in actions]
    for number in _SIGNALS:  # until the runner runs
        loop.add_signal_handler(number, lambda: serving and serving.cancel())
    async with contextlib.AsyncExitStack() as stack:
        try:
            connection = await connect(
                settings.servers,
                "opstream-runner",
                connect_timeout=settings.connect_timeout,
                credentials=settings.credentials,
                need=need_of_service(Role.RUNNER),
            )
            stack.push_async_callback(connection.close)
            stack.enter_context(keep_from_forks(connection.descriptors))
            metrics = Metrics()
            login = LoginCheck(connection, Role.RUNNER, actions=access)
            runner = await _build_runner(settings, connection, actions, metrics, ring)
            await retry_until_ready(connection, login.check, settings.connect_timeout)
        except asyncio.CancelledError:
            runner = None
        # Some of nats-py's waits lose a cancellation that arrives at the same moment as their result.
        if runner is None or (serving is not None and serving.cancelling()):
            logger.info("stopped by a signal before the first message was pulled")
            return
        if sock is not None:
            health = HealthServer(
                sock,
                lambda: runner.is_ready,
                conditions,
                metrics=metrics,
                is_address_chosen=bool(settings.health_host),
            )
            health.start()
            stack.push_async_callback(health.stop)
        async with BrokerMonitor(connection, conditions, login).running():
            await _run_until_signal(connection, runner)


async def _build_runner(
    settings: Settings,
    connection: Connection,
    actions: list[Action[Any, Any]],
    metrics: Metrics,
    ring: KekRing | None,
) -> Runner:
    max_msg_size = await retry_until_ready(connection, lambda: check_provisioned(connection), settings.connect_timeout)
    _check_result_limit(settings.result_limit, max_msg_size, connection.nc.max_payload)
    opened = await retry_until_ready(
        connection,
        lambda: open_payloads(settings.payload_store, connection, _utc_now, _new_id),
        settings.connect_timeout,
    )
    result_limit = settings.result_limit
    if opened.store is None and max_msg_size >= 0:
        result_limit = min(result_limit, max_msg_size - EVENT_OVERHEAD)
    journal = Journal(connection, max_msg_size=max_msg_size, clock=time.monotonic, tracing=settings.tracing)
    await journal.start()
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    dependencies = RunnerDependencies(
        journal=journal,
        source=f"opstream/runner/{name}",
        now=_utc_now,
        monotonic=time.monotonic,
        new_id=_new_id,
        result_limit=result_limit,
        documents=opened.documents,
        payloads=opened.payloads,
        jitter=_jitter,
        tracing=settings.tracing,
        keys=None if ring is None else OperationKeys(connection, ring, is_direct=True),
    )
    runner = Runner(
        connection,
        dependencies,
        actions,
        name=name,
        concurrency=settings.concurrency,
        drain=settings.drain,
        allows_schema_change=settings.allows_schema_change,
    )
    if opened.payloads is not None:
        metrics.add(*opened.payloads.meter.instruments)
    metrics.add(*journal.meter.instruments, *dependencies.meter.instruments, *runner.instruments)
    await retry_until_ready(connection, runner.offer, settings.connect_timeout)
    await _notify_of_events(connection, runner)
    return runner


async def _notify_of_events(connection: Connection, runner: Runner) -> None:
    for kind in runner.kinds:
        for event in _NOTIFYING_EVENTS:
            subject = subjects.action_events_filter(kind, event.name)
            await connection.nc.subscribe(subject, cb=_notification_handler(runner, kind))


async def _run_until_signal(connection: Connection, runner: Runner) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()

    def begin_drain(number: int) -> None:
        logger.info("received %s: no more attempts start", signal.Signals(number).name)
        runner.begin_drain()
        ending.set()

    runner.failure.add_done_callback(lambda _: ending.set())
    runner.start()
    for number in _SIGNALS:
        loop.add_signal_handler(number, begin_drain, number)
    logger.info("running %s", ", ".join(map(str, runner.kinds)))
    await ending.wait()
    await runner.stop()
    connection.expect_close()
    if runner.failure.done():
        raise runner.failure.result()


def _check_confidential(actions: list[Action[Any, Any]], *, has_keks: bool) -> None:
    """Check that a runner can offer its confidential actions.

    Raises:
        InvalidAction: it has one, and no key-encryption key.
    """
    found = [str(one.kind) for one in actions if one.spec.policy.confidential]
    if found and not has_keks:
        what = "is confidential" if len(found) == 1 else "are confidential"
        raise InvalidAction(f"{', '.join(found)} {what}, and this runner can't seal what it does: {NO_KEK}")


def _check_result_limit(result_limit: int, max_msg_size: int, max_payload: int) -> None:
    needed = event_room(result_limit)
    if 0 <= max_msg_size < needed:
        raise Drifted(
            f"the journal accepts events of {max_msg_size} bytes, and results in events need {needed}: "
            f"run 'opstream provision --max-msg-size {needed} --update' or lower --max-result"
        )
    if max_payload < needed:
        raise Drifted(
            f"the broker accepts messages of {max_payload} bytes, and results in events need {needed}: "
            f"raise max_payload in its configuration or lower --max-result"
        )


def _notification_handler(runner: Runner, kind: Kind) -> Callable[[Msg], Awaitable[None]]:
    ignored = BoundedLog(logger, f"notifications of {kind} that were ignored")

    async def notify(message: Msg) -> None:
        try:
            subject = subjects.parse_event_subject(message.subject)
        except InvalidName as error:
            ignored.log(logging.INFO, "a notification was ignored: %s", error)
            return
        runner.notify(kind, subject.operation_id)

    return notify


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _jitter() -> float:
    return random.uniform(MIN_JITTER_FACTOR, 1.0)  # noqa: S311 - it need not be unpredictable


def _new_id() -> str:
    return str(uuid_utils.uuid7())
