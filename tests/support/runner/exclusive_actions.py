"""Actions that exclude each other: a log of when they ran, and requests that name their lock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_projector.after_effects import LockReleaser
from opstream_runner import Action, ActionContext, action
from opstream_schemas import subjects
from opstream_schemas.events import RecordedEvent
from opstream_schemas.names import Kind
from tests.support.journal.journals import KIND
from tests.support.projector.projection import projector, running
from tests.support.runner.stage import HandlerGate, Input, RunnerStage
from tests.support.system.wait import eventually


class Log:
    """The operations that started and ended, in order, and how many ran at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.inside: list[str] = []
        self.overlaps: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def entry(self, operation_id: str) -> Iterator[None]:
        """Enter for the time of one handler."""
        self.begun.append(operation_id)
        self.inside.append(operation_id)
        if len(self.inside) > 1:
            self.overlaps.append(tuple(self.inside))
        try:
            yield
        finally:
            self.inside.remove(operation_id)


def exclusive(log: Log, *, name: str = str(KIND), gate: HandlerGate | None = None, **options: Any) -> Action[..., Any]:
    """An exclusive action that logs its start and end, and waits at a gate if it has one."""
    options = {"exclusive": "resource"} | options

    @action(name, **options)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        with log.entry(ctx.operation_id):
            if gate is not None:
                await gate.wait(ctx)
            else:
                await asyncio.sleep(0)  # others that may run get the chance
        return ctx.attempt

    return handler


async def ask(
    stage: RunnerStage, offered: Action[..., Any], *ids: str, resource_id: str = "42", **changes: Any
) -> list[RecordedEvent]:
    """Request operations one after the other, as the API does for an action."""
    spec = offered.spec
    hold = subjects.lock_key(spec.lock_scope, resource_id) if spec.lock_scope else ""
    kind: Kind = spec.kind
    changes |= {"hold": hold, "resource_id": resource_id}
    return [event for one in ids for event in await stage.request(one, kind=kind, **changes)]


class Queue:
    """One lock, as the bucket has it."""

    def __init__(self, link: Connection, journal: Journal, hold: str) -> None:
        self._holds = ResourceLocks(link, journal)
        self._hold = hold

    async def start(self) -> None:
        """Open the inbox."""
        await self._holds.start()

    async def waiting(self) -> list[str]:
        """The waiters, in order."""
        return [one.operation_id for one in await self._holds.waiters(self._hold)]

    async def holder(self) -> str:
        """The owner that has not ended; empty without one."""
        found = await self._holds.owner(self._hold)
        return found.operation_id if found else ""

    async def is_held_by(self, operation_id: str) -> bool:
        """Return True if an operation owns the lock."""
        return await self.holder() == operation_id

    async def has(self, *ids: str) -> None:
        """Wait until exactly these operations wait."""

        async def probe() -> bool:
            return await self.waiting() == list(ids)

        await eventually(probe, within=10)


async def queue_of(stage: RunnerStage, offered: Action[..., Any], resource_id: str = "42") -> Queue:
    """The queue for a resource of an action."""
    queue = Queue(stage.link, stage.journal, subjects.lock_key(offered.spec.lock_scope, resource_id))
    await queue.start()
    return queue


@contextlib.asynccontextmanager
async def releasing(link: Connection, journal: Journal) -> AsyncIterator[None]:
    """A projector that releases locks, as `opstream_projector.main` makes it."""
    holds = ResourceLocks(link, journal)
    await holds.start()
    async with running(projector(link, journal, SnapshotStore(link), effects=[LockReleaser(holds)])):
        yield
