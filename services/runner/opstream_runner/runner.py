"""All actions of one process: checks, consumers, announcements, dispatchers. Caller: `main.py`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from opstream_journal import Connection, Drifted, announce_action
from opstream_journal.provisioning.provision import check_journal_age, ensure_runner_consumer
from opstream_schemas.names import Kind

from .authoring.action import Action
from .dependencies import RunnerDependencies
from .dispatch.dispatcher import Dispatcher
from .errors import InvalidAction

logger = logging.getLogger(__name__)

_STOP_TIMEOUT: Final = 5.0


class Runner:
    """Offers actions and runs them.

    Args:
        link: the connection.
        tools: what attempts work with.
        actions: what to offer.
        name: this process, as events name it.
        concurrency: attempts of one action at once.
        drain: seconds that attempts have to end by themselves once this process was told to end.

    Raises:
        InvalidAction: an isolated action was not collected from a module, so that no other process could find it.
    """

    def __init__(
        self,
        link: Connection,
        tools: RunnerDependencies,
        actions: list[Action[Any, Any]],
        *,
        name: str,
        concurrency: int,
        drain: float = 0.0,
    ) -> None:
        for action in actions:
            if action.is_isolated and not action.module:
                raise InvalidAction(f"action {action.kind} is isolated: collect it from a module that can be imported")
        self._link = link
        self._monotonic = tools.monotonic
        self._drain = drain
        self._actions = actions
        self._dispatchers = {
            action.kind: Dispatcher(link, tools, action, runner=name, slots=concurrency) for action in actions
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Set once a dispatcher can't go on."""

    @property
    def kinds(self) -> list[Kind]:
        """The actions that this process offers."""
        return list(self._dispatchers)

    @property
    def is_ready(self) -> bool:
        """Whether every action is pulled and the broker is there; not while stopping."""
        is_pulling = bool(self._tasks) and not any(task.done() for task in self._tasks)
        return is_pulling and self._closing is None and self._link.is_connected

    async def offer(self) -> None:
        """Make the consumers, and only then announce the actions.

        Raises:
            Drifted: a consumer exists and differs, or the journal forgets too early for an action.
            JournalError: the broker refused or did not answer.
        """
        await check_journal_age(self._link, [action.spec for action in self._actions])
        for action in self._actions:
            await ensure_runner_consumer(self._link, action.spec)
        for action in self._actions:
            if not await announce_action(self._link, action.spec):
                logger.warning(
                    "%s: a higher version than %s is announced; clients are validated against that one",
                    action.kind,
                    action.spec.action_version,
                )

    def start(self) -> None:
        """Begin to pull."""
        for kind, dispatcher in self._dispatchers.items():
            task = asyncio.create_task(dispatcher.run(), name=f"dispatch {kind}")
            task.add_done_callback(self._on_dispatcher_end)
            self._tasks.append(task)

    def notify(self, kind: Kind, operation_id: str) -> None:
        """Somebody says that something happened to an operation."""
        dispatcher = self._dispatchers.get(kind)
        if dispatcher is not None:
            dispatcher.notify(operation_id)

    def begin_drain(self) -> None:
        """The process is told to end: pull no more, and begin nothing any more. Told again: do not wait for what runs.

        `stop` does the rest.
        """
        if self._closing is not None:
            self._hurry.set()
            return
        for task in self._tasks:
            task.cancel()
        for dispatcher in self._dispatchers.values():
            dispatcher.begin_drain()
        self._closing = asyncio.create_task(self._stop_pulling(), name="close")

    async def stop(self) -> None:
        """Pull no more, wait `drain` seconds for what runs, and hand back the rest, all actions at once.

        In 6 s more than the drain at most, also when the broker is away. There is no drain after a failure: whoever is
        to start this process again should know soon.
        """
        if self._closing is None:
            self.begin_drain()
        if self._drain and not self.failure.done():
            await self._drain_or_hurry()
        until = self._monotonic() + _STOP_TIMEOUT
        if self._closing is not None:
            await self._closing
        await asyncio.gather(*(dispatcher.stop(until) for dispatcher in self._dispatchers.values()))

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
            logger.info("what still runs is handed back")
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
        self.failure.set_result(error if isinstance(error, Exception) else Drifted("a dispatcher ended by itself"))
