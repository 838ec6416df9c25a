"""The runner: all actions of one process, with their consumers, announcements and dispatchers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any, Final

from opstream_journal import Connection, Drifted, announce_action
from opstream_journal.metrics.instruments import Gauges, Instrument
from opstream_journal.metrics.wait_gauges import wait_gauges
from opstream_journal.provisioning.provision import check_journal_age, ensure_runner_consumer
from opstream_journal.queues.runner_records import PresenceWriter, RunnerRecord
from opstream_journal.stores.action_catalog import changed_schemas
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import WaitingReason

from .authoring.action import Action
from .dependencies import RunnerDependencies
from .dispatch.dispatcher import Dispatcher
from .errors import InvalidAction
from .handler.handler_loop import HandlerLoop
from .presence import PresenceKeeper

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 5.0


class Runner:
    """Offers actions and runs their attempts.

    Args:
        connection: the connection to the broker.
        dependencies: journal, clocks and ids.
        actions: the actions to offer.
        name: this process's name in events.
        concurrency: how many attempts of each action run at once.
        drain: seconds that attempts have to end by themselves after `begin_drain`.
        allows_schema_change: whether an action's types may differ from those that were announced as the same version.

    Raises:
        InvalidAction: an isolated action was not collected from a module, so another process could not find it.
    """

    def __init__(
        self,
        connection: Connection,
        dependencies: RunnerDependencies,
        actions: list[Action[Any, Any]],
        *,
        name: str,
        concurrency: int,
        drain: float = 0.0,
        allows_schema_change: bool = False,
    ) -> None:
        for action in actions:
            if action.is_isolated and not action.module:
                raise InvalidAction(f"action {action.kind} is isolated: collect it from a module that can be imported")
        self._connection = connection
        self._monotonic = dependencies.monotonic
        self._drain = drain
        self._allows_schema_change = allows_schema_change
        self._actions = actions
        modules = (action.module or action.handler.__module__ for action in actions)
        self._handler_loop = HandlerLoop({module.partition(".")[0] for module in modules})
        self._dispatchers = {
            action.kind: Dispatcher(
                connection, dependencies, action, runner=name, slots=concurrency, handler_loop=self._handler_loop
            )
            for action in actions
        }
        self._slots = concurrency
        self._name = name
        self._now = dependencies.now
        self._presence = PresenceKeeper(
            PresenceWriter(connection, name), self._presence_records, clock=dependencies.monotonic
        )
        self._started_at = dependencies.now()
        self._tasks: list[asyncio.Task[None]] = []
        self._pulling_stopped: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Resolved with the error once a dispatcher can't continue."""

    @property
    def kinds(self) -> list[Kind]:
        """The names of the actions that this process offers."""
        return list(self._dispatchers)

    @property
    def is_ready(self) -> bool:
        """True if every dispatcher pulls, the broker is connected, and no handler blocks the others; False while
        stopping."""
        is_pulling = bool(self._tasks) and not any(task.done() for task in self._tasks)
        is_working = is_pulling and not self._handler_loop.is_blocked
        return is_working and self._pulling_stopped is None and self._connection.is_connected

    @property
    def instruments(self) -> list[Instrument]:
        """The gauges of this process, by the actions that it offers."""
        return [
            Gauges(
                "opstream_running",
                "Attempts that run in this process now. Sum over runners.",
                "action",
                read=lambda: [((str(kind),), one.running) for kind, one in self._dispatchers.items()],
            ),
            Gauges(
                "opstream_slots",
                "Attempts that this process runs at once at most (--concurrency). Sum over runners.",
                "action",
                read=lambda: [((str(kind),), self._slots) for kind in self._dispatchers],
            ),
            *wait_gauges(
                lambda: {
                    (str(kind), str(WaitingReason.VERSION)): one.versions.waits
                    for kind, one in self._dispatchers.items()
                }
            ),
        ]

    async def offer(self) -> None:
        """Create the consumers, and only then announce the actions: all of them, or none.

        Raises:
            SchemaChanged: an action has other types than the catalog has of the same version.
            Drifted: a consumer exists and differs, or the journal's age limit is too short for an action.
            JournalError: the broker refused or did not respond.
        """
        await check_journal_age(self._connection, [action.spec for action in self._actions])
        for action in self._actions:
            changed = await changed_schemas(self._connection, action.spec, is_refused=not self._allows_schema_change)
            if "input" in changed:
                self._dispatchers[action.kind].versions.expect_other_schemas()
        for action in self._actions:
            await ensure_runner_consumer(self._connection, action.spec)
        for action in self._actions:
            if not await announce_action(
                self._connection, action.spec, allows_schema_change=self._allows_schema_change
            ):
                logger.warning(
                    "%s: a higher version than %s is announced; the API validates requests against that one",
                    action.kind,
                    action.spec.action_version,
                )

    def start(self) -> None:
        """Start to pull messages, and say that this runner is there."""
        self._started_at = self._now()
        for kind, dispatcher in self._dispatchers.items():
            task = asyncio.create_task(dispatcher.run(), name=f"dispatch {kind}")
            task.add_done_callback(self._on_dispatcher_end)
            self._tasks.append(task)
        self._presence.start()

    def notify(self, kind: Kind, operation_id: str) -> None:
        """If the operation runs here, let its attempt read the journal now, because an event was published."""
        dispatcher = self._dispatchers.get(kind)
        if dispatcher is not None:
            dispatcher.notify(operation_id)

    def begin_drain(self) -> None:
        """Stop pulling and start no more attempts. A second call ends the drain at once. `stop` does the rest."""
        if self._pulling_stopped is not None:
            self._hurry.set()
            return
        for task in self._tasks:
            task.cancel()
        for dispatcher in self._dispatchers.values():
            dispatcher.begin_drain()
        self._presence.begin_end()
        self._pulling_stopped = asyncio.create_task(self._stop_pulling(), name="stop pulling")

    async def stop(self) -> None:
        """Stop pulling, wait up to `drain` seconds for running attempts, and release the rest, all actions at once.

        It takes at most 7 s longer than the drain, even without the broker. After a failure there is no drain, so that
        the process can be restarted soon.
        """
        if self._pulling_stopped is None:
            self.begin_drain()
        if self._drain and not self.failure.done():
            await self._drain_or_hurry()
        until = self._monotonic() + _STOP_TIMEOUT
        if self._pulling_stopped is not None:
            await self._pulling_stopped
        await asyncio.gather(*(dispatcher.stop(until) for dispatcher in self._dispatchers.values()))
        await self._presence.ended()
        await self._handler_loop.close()

    def _presence_records(self) -> list[tuple[Kind, RunnerRecord]]:
        host, pid = socket.gethostname(), os.getpid()
        return [
            (
                action.kind,
                RunnerRecord(
                    runner=self._name,
                    host=host,
                    pid=pid,
                    version=action.spec.action_version,
                    slots=self._slots,
                    free=max(0, self._slots - self._dispatchers[action.kind].running),
                    since=self._started_at,
                ),
            )
            for action in self._actions
        ]

    async def _stop_pulling(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(dispatcher.stop_pulling() for dispatcher in self._dispatchers.values()))

    async def _drain_or_hurry(self) -> None:
        idle = asyncio.create_task(self._wait_until_idle())
        hurry = asyncio.create_task(self._hurry.wait())
        ends: list[asyncio.Task[Any]] = [idle, hurry]
        await asyncio.wait(ends, timeout=self._drain, return_when=asyncio.FIRST_COMPLETED)
        if not idle.done():
            logger.info("releasing the attempts that still run")
        for end in ends:
            end.cancel()
        await asyncio.wait(ends)

    async def _wait_until_idle(self) -> None:
        for dispatcher in self._dispatchers.values():
            await dispatcher.wait_until_idle()

    def _on_dispatcher_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failure.done():
            return
        error = task.exception()
        self.failure.set_result(
            error if isinstance(error, Exception) else Drifted("a dispatcher ended without an error")
        )
