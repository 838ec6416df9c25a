"""Composition root of the runner: settings in, a running process out. Called by the `opstream` command.

FastStream owns the process: the connection, start and stop, signals, the control subscriptions. The journal's own
pull loop dispatches (docs/adr/0002).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import uuid_utils
import uvloop
from faststream import AckPolicy, FastStream
from faststream.nats import NatsBroker, NatsMessage

from opstream_journal import Drifted, Journal, Link
from opstream_journal.health import HealthServer, listen
from opstream_journal.link import unreachable
from opstream_journal.provision import check
from opstream_journal.topology import EVENT_OVERHEAD
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import CancelRequested
from opstream_schemas.names import Kind

from .actions import Action, collect
from .attempt import Tools
from .errors import InvalidAction
from .runner import Runner
from .settings import Settings

logger = logging.getLogger(__name__)

_DRAIN: Final = 1.0


def run(settings: Settings) -> None:
    """Offer the actions of the settings' modules and run them until SIGTERM or SIGINT.

    Raises:
        InvalidAction: a module can't be imported or holds no valid action.
        JournalError: the broker can't be reached, lacks something or differs, or a consumer was deleted.
    """
    actions = load_actions(settings.modules)
    uvloop.run(_serve(settings, actions))


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
    return collect(imported)


async def _serve(settings: Settings, actions: list[Action[Any, Any]]) -> None:
    link = Link("opstream-runner")
    broker = NatsBroker(
        list(settings.servers), logger=None, ack_policy=AckPolicy.MANUAL, graceful_timeout=_DRAIN, **link.options()
    )
    try:
        async with asyncio.timeout(settings.connect_timeout):
            link.attach(await broker.connect())
    except (TimeoutError, OSError) as error:
        link.expect_close()
        raise unreachable(settings.servers, settings.connect_timeout) from error
    runner: Runner | None = None
    try:
        runner = await _compose(settings, link, actions)
        await _live(settings, link, broker, runner)
    finally:
        await link.close()


async def _compose(settings: Settings, link: Link, actions: list[Action[Any, Any]]) -> Runner:
    max_msg_size = await check(link)
    needed = settings.result_limit + EVENT_OVERHEAD
    if 0 <= max_msg_size < needed:
        raise Drifted(
            f"the journal takes events of {max_msg_size} bytes, results of {settings.result_limit} need {needed}: "
            f"run 'opstream provision --max-msg-size {needed} --update' or lower --max-result"
        )
    journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
    await journal.start()
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    tools = Tools(
        journal=journal,
        source=f"opstream/runner/{name}",
        now=_utc_now,
        monotonic=time.monotonic,
        new_id=_new_id,
        result_limit=settings.result_limit,
    )
    runner = Runner(link, tools, actions, name=name, concurrency=settings.concurrency)
    await runner.offer()
    return runner


async def _live(settings: Settings, link: Link, broker: NatsBroker, runner: Runner) -> None:
    app = FastStream(broker, logger=None)

    @app.after_startup
    async def start() -> None:
        # Async although it awaits nothing: FastStream runs plain hooks in a thread, without the loop.
        runner.start()

    @app.on_shutdown
    async def stop() -> None:
        await runner.stop()
        link.expect_close()

    for kind in runner.kinds:
        broker.subscriber(subjects.events_of_kind_filter(kind, CancelRequested.name))(_hint_handler(runner, kind))

    runner.failure.add_done_callback(lambda _: app.exit())
    health: HealthServer | None = None
    if settings.health_port:
        health = HealthServer(listen("0.0.0.0", settings.health_port, "--health-port"), lambda: runner.is_ready)  # noqa: S104 - probes come from other hosts
        health.start()
    try:
        await app.run()
    finally:
        if health is not None:
            await health.stop()
    if runner.failure.done():
        raise runner.failure.result()


def _hint_handler(runner: Runner, kind: Kind) -> Callable[[NatsMessage], Awaitable[None]]:
    async def hint(message: NatsMessage) -> None:
        try:
            subject = subjects.parse_event_subject(message.raw_message.subject)
        except InvalidName as error:
            logger.info("a hint was ignored: %s", error)
            return
        runner.hint(kind, subject.operation_id)

    return hint


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())
