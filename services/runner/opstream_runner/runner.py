"""All actions of one process: checks, consumers, announcements, dispatchers. Caller: `main.py`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from opstream_journal import Drifted, Link, announce
from opstream_journal.provision import ensure_consumer
from opstream_schemas.names import Kind

from .actions import Action
from .dispatch import Dispatcher
from .errors import InvalidAction
from .recorder import Tools

logger = logging.getLogger(__name__)


class Runner:
    """Offers actions and runs them.

    Args:
        link: the connection.
        tools: what attempts work with.
        actions: what to offer.
        name: this process, as events name it.
        concurrency: attempts of one action at once.

    Raises:
        InvalidAction: an isolated action was not collected from a module, so that no other process could find it.
    """

    def __init__(
        self, link: Link, tools: Tools, actions: list[Action[Any, Any]], *, name: str, concurrency: int
    ) -> None:
        for action in actions:
            if action.is_isolated and not action.module:
                raise InvalidAction(f"action {action.kind} is isolated: collect it from a module that can be imported")
        self._link = link
        self._actions = actions
        self._dispatchers = {
            action.kind: Dispatcher(link, tools, action, runner=name, slots=concurrency) for action in actions
        }
        self._tasks: list[asyncio.Task[None]] = []
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Set once a dispatcher can't go on."""

    @property
    def kinds(self) -> list[Kind]:
        """The actions that this process offers."""
        return list(self._dispatchers)

    @property
    def is_ready(self) -> bool:
        """Whether every action is pulled and the broker is there; not while stopping."""
        return bool(self._tasks) and self._link.is_up and not any(task.done() for task in self._tasks)

    async def offer(self) -> None:
        """Make the consumers, and only then announce the actions.

        Raises:
            Drifted: a consumer exists and differs.
            JournalError: the broker refused or did not answer.
        """
        for action in self._actions:
            await ensure_consumer(self._link, action.spec)
        for action in self._actions:
            if not await announce(self._link, action.spec):
                logger.warning(
                    "%s: a higher version than %s is announced; clients are validated against that one",
                    action.kind,
                    action.spec.action_version,
                )

    def start(self) -> None:
        """Begin to pull."""
        for kind, dispatcher in self._dispatchers.items():
            task = asyncio.create_task(dispatcher.run(), name=f"dispatch {kind}")
            task.add_done_callback(self._note_end)
            self._tasks.append(task)

    def hint(self, kind: Kind, operation_id: str) -> None:
        """Somebody says that something happened to an operation."""
        dispatcher = self._dispatchers.get(kind)
        if dispatcher is not None:
            dispatcher.hint(operation_id)

    async def stop(self) -> None:
        """Pull no more and hand back what runs, all actions at once."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(dispatcher.stop() for dispatcher in self._dispatchers.values()))

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failure.done():
            return
        error = task.exception()
        self.failure.set_result(error if isinstance(error, Exception) else Drifted("a dispatcher ended by itself"))
