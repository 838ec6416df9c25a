"""Composition root of the runner: settings in, a running process out. Called by the `opstream` command.

FastStream owns the process: start and stop, signals, the control subscriptions, on the one connection that the journal
has too. The journal's own pull loop dispatches (docs/adr/0002).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
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
from faststream import AckPolicy, FastStream
from faststream.nats import NatsMessage

from opstream_journal import Connection, Drifted, Journal, connect, retry_until_ready
from opstream_journal.provisioning.provision import check_provisioned
from opstream_journal.provisioning.topology import EVENT_OVERHEAD
from opstream_journal.runtime.health import HealthServer, listen
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import CancelRequested, Failed
from opstream_schemas.names import Kind
from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR

from .authoring.action import Action, collect_actions
from .dependencies import RunnerDependencies
from .errors import InvalidAction
from .event_loop import run_until_complete
from .faststream_broker import SharedConnectionBroker
from .runner import Runner
from .settings import Settings

logger = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_NOTIFYING_EVENTS: Final = (CancelRequested, Failed)
"""What a running attempt wants to know of at once: somebody else wants, or has made, an end of its operation."""


def run(settings: Settings) -> None:
    """Offer the actions of the settings' modules and run them until SIGTERM or SIGINT.

    Raises:
        InvalidAction: a module can't be imported or holds no valid action.
        JournalError: the health port is taken; the broker can't be reached, lacks something or differs; or a consumer
            was deleted.
    """
    actions = load_actions(settings.modules)
    with contextlib.ExitStack() as stack:
        sock = None
        if settings.health_port:
            # Probes come from other hosts. Before anything else: a second runner must not announce, and then die.
            sock = stack.enter_context(listen("0.0.0.0", settings.health_port, "--health-port"))  # noqa: S104
        run_until_complete(_serve(settings, actions, sock))


def load_actions(modules: tuple[str, ...]) -> list[Action[Any, Any]]:
    """Import modules and collect their actions.

    Raises:
        InvalidAction: see `run`.
    """
    imported = []
    for name in modules:
        try:
            imported.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise InvalidAction(f"there is no module {name!r}: check --actions and PYTHONPATH") from error
    return collect_actions(imported)


async def _serve(settings: Settings, actions: list[Action[Any, Any]], sock: socket.socket | None) -> None:
    loop, serving = asyncio.get_running_loop(), asyncio.current_task()
    for number in _SIGNALS:  # until FastStream takes them over
        loop.add_signal_handler(number, lambda: serving and serving.cancel())
    async with contextlib.AsyncExitStack() as stack:
        try:
            link = await connect(settings.servers, "opstream-runner", connect_timeout=settings.connect_timeout)
            stack.push_async_callback(link.close)
            runner = await _build_runner(settings, link, actions)
        except asyncio.CancelledError:
            runner = None
        # Some of nats-py's waits forget a cancellation that comes in the same moment as what they wait for.
        if runner is None or (serving is not None and serving.cancelling()):
            logger.info("told to stop before anything was pulled")
            return
        if sock is not None:
            health = HealthServer(sock, lambda: runner.is_ready)
            health.start()
            stack.push_async_callback(health.stop)
        await _serve_faststream(link, runner)


async def _build_runner(settings: Settings, link: Connection, actions: list[Action[Any, Any]]) -> Runner:
    max_msg_size = await retry_until_ready(link, lambda: check_provisioned(link), settings.connect_timeout)
    _check_result_limit(settings.result_limit, max_msg_size, link.nc.max_payload)
    journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
    await journal.start()
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    tools = RunnerDependencies(
        journal=journal,
        source=f"opstream/runner/{name}",
        now=_utc_now,
        monotonic=time.monotonic,
        new_id=_new_id,
        result_limit=settings.result_limit,
        jitter=_jitter,
    )
    runner = Runner(link, tools, actions, name=name, concurrency=settings.concurrency, drain=settings.drain)
    await retry_until_ready(link, runner.offer, settings.connect_timeout)
    return runner


async def _serve_faststream(link: Connection, runner: Runner) -> None:
    broker = SharedConnectionBroker(link, ack_policy=AckPolicy.MANUAL)
    app = FastStream(broker, logger=None)
    loop = asyncio.get_running_loop()

    def leave(number: int) -> None:
        logger.info("told to end by %s", signal.Signals(number).name)
        runner.begin_drain()
        app.exit()

    @app.after_startup
    async def start() -> None:
        # Async although it awaits nothing: FastStream runs plain hooks in a thread, without the loop.
        runner.start()
        # Instead of FastStream's, which look ten times a second and take no notice of a second signal.
        for number in _SIGNALS:
            loop.add_signal_handler(number, leave, number)
        logger.info("running %s", ", ".join(map(str, runner.kinds)))

    @app.on_shutdown
    async def stop() -> None:
        await runner.stop()
        link.expect_close()

    for kind in runner.kinds:
        for event in _NOTIFYING_EVENTS:
            broker.subscriber(subjects.action_events_filter(kind, event.name))(_notification_handler(runner, kind))
    runner.failure.add_done_callback(lambda _: app.exit())
    await app.run()
    if runner.failure.done():
        raise runner.failure.result()


def _check_result_limit(result_limit: int, max_msg_size: int, max_payload: int) -> None:
    needed = result_limit + EVENT_OVERHEAD
    if 0 <= max_msg_size < needed:
        raise Drifted(
            f"the journal takes events of {max_msg_size} bytes, results of {result_limit} need {needed}: "
            f"run 'opstream provision --max-msg-size {needed} --update' or lower --max-result"
        )
    if max_payload < needed:
        raise Drifted(
            f"the broker takes messages of {max_payload} bytes, results of {result_limit} need {needed}: "
            f"raise max_payload in its configuration or lower --max-result"
        )


def _notification_handler(runner: Runner, kind: Kind) -> Callable[[NatsMessage], Awaitable[None]]:
    async def hint(message: NatsMessage) -> None:
        try:
            subject = subjects.parse_event_subject(message.raw_message.subject)
        except InvalidName as error:
            logger.info("a hint was ignored: %s", error)
            return
        runner.notify(kind, subject.operation_id)

    return hint


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _jitter() -> float:
    return random.uniform(MIN_JITTER_FACTOR, 1.0)  # noqa: S311 - nothing depends on it being unforeseeable


def _new_id() -> str:
    return str(uuid_utils.uuid7())
