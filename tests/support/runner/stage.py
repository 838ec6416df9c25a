"""Runners in the test's process, on a real broker: actions that the test holds, requests, and their events.

stage = Stage(link, journal)
gate = Gate()
async with stage.runner([gated(gate)]):
    await stage.request("op-1")
    await gate.entered(1)
    gate.open()
    assert (await stage.ended("op-1")).status is Status.SUCCEEDED

"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

from opstream_journal import NEW_OPERATION, Connection, ExpectedVersion, Journal, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.stores.timers import WakeUp, queue_request
from opstream_runner import Action, ActionContext, action
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.runner import Runner
from opstream_schemas import subjects
from opstream_schemas.events import CancelRequested, EventData, RecordedEvent
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import initial
from opstream_schemas.operation.state import Operation
from tests.support.journal.journals import KIND, first, folded, following
from tests.support.runner.shared_event import SharedEvent
from tests.support.schemas.histories import request
from tests.support.system.wait import eventually

CONSUMER: Final = subjects.runner_consumer(KIND)
ACKS: Final = f"$JS.ACK.{subjects.OPERATIONS_STREAM}.{CONSUMER}.>"
"""What runners tell the broker about their messages."""
READS: Final = f"$JS.API.STREAM.MSG.GET.{subjects.OPERATIONS_STREAM}"
"""Reads from the leader."""

CANCEL_REQUEST: Final = CancelRequested(by="ann", reason="late")
"""A client wants the operation canceled."""


class Input(msgspec.Struct):
    """The input of these actions: any JSON object."""


class HandlerGate:
    """Handlers wait here until the test opens it. It knows who came, who was cancelled, and how many are in it."""

    def __init__(self) -> None:
        self.contexts: list[ActionContext] = []
        self.cancelled: list[int] = []
        self.inside = 0
        self.most = 0
        self._is_open = SharedEvent()

    @property
    def attempts(self) -> list[tuple[str, int]]:
        """Operation and attempt of everyone who came, in order."""
        return [(one.operation_id, one.attempt) for one in self.contexts]

    def open(self) -> None:
        """Let all handlers pass, now and later."""
        self._is_open.set()

    async def entered(self, count: int, within: float = 10.0) -> None:
        """Wait until this many have come."""
        await eventually(lambda: len(self.contexts) >= count, within=within)

    async def wait(self, context: ActionContext) -> None:
        """Pass the gate."""
        self.contexts.append(context)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self._is_open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(context.attempt)
            raise
        finally:
            self.inside -= 1


def gated(gate: HandlerGate, **options: Any) -> Action[..., Any]:
    """An action whose handler waits at a gate and returns the number of its attempt."""

    @action(str(KIND), **options)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        await gate.wait(ctx)
        return ctx.attempt

    return handler


class SubjectSpy:
    """The messages on some subjects, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    async def note(self, message: Msg) -> None:
        """One message."""
        self.seen.append((message.subject, message.data))

    def acks(self, deliveries: int) -> list[bytes]:
        """The acks, naks and heartbeats of messages in their n-th delivery (subject: see NATS ADR-15)."""
        return [data for subject, data in self.seen if subject.split(".")[-5] == str(deliveries)]


class RunnerStage:
    """A provisioned broker, and helpers to run actions on it.

    Args:
        link: a connection.
        journal: the journal on it.
    """

    def __init__(self, link: Connection, journal: Journal) -> None:
        self.link = link
        self.journal = journal
        self._names = itertools.count(1)

    def dependencies(
        self, *, journal: Journal | None = None, result_limit: int = 10_000, **changes: Any
    ) -> RunnerDependencies:
        """The dependencies of a runner."""
        dependencies = RunnerDependencies(
            journal=journal or self.journal,
            source="test/runner",
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            new_id=lambda: str(uuid.uuid4()),
            result_limit=result_limit,
            jitter=lambda: 1.0,
        )
        return msgspec.structs.replace(dependencies, **changes)

    @contextlib.asynccontextmanager
    async def runner(
        self,
        actions: Sequence[Action[..., Any]],
        *,
        link: Connection | None = None,
        dependencies: RunnerDependencies | None = None,
        concurrency: int = 4,
        drain: float = 0.0,
        allows_schema_change: bool = True,
    ) -> AsyncIterator[Runner]:
        """A runner that offers the actions and pulls; stopped at the end."""
        name = f"runner-{next(self._names)}"
        runner = Runner(
            link or self.link,
            dependencies or self.dependencies(),
            list(actions),
            name=name,
            concurrency=concurrency,
            drain=drain,
            allows_schema_change=allows_schema_change,
        )
        await runner.offer()
        runner.start()
        try:
            yield runner
        finally:
            await runner.stop()

    async def request(
        self, *ids: str, kind: Kind = KIND, given: bytes = b"{}", deadline: float = 86_400.0, **changes: Any
    ) -> list[RecordedEvent]:
        """Request an action, once for each id."""
        at = datetime.now(UTC) + timedelta(seconds=deadline)
        changes |= {"resource": kind.resource, "action": kind.action, "deadline": at, "input": msgspec.Raw(given)}
        asked = [first(one, data=request(**changes)) for one in ids]
        return await asyncio.gather(*(self.journal.append(kind, event, NEW_OPERATION, budget=20) for event in asked))

    async def request_with(self, priority: str, *ids: str, is_queued: bool = True) -> None:
        """Request operations of a priority, as the API does: their wake-ups follow, unless it is killed."""
        for event in await self.request(*ids, priority=priority):
            if is_queued:
                queue_request(self.link, initial(event))
        await self.link.nc.flush()

    async def count_queued(self, priority: str) -> int:
        """The messages in the further queue of a priority that no runner has got."""
        name = subjects.runner_consumer(KIND, priority)
        info = await self.link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, name)
        return info.num_pending or 0

    async def events(self, operation_id: str) -> list[RecordedEvent]:
        """All events of an operation."""
        return await self.journal.events(operation_id)

    async def datas(self, operation_id: str) -> list[EventData]:
        """The data of these events."""
        return [event.data for event in await self.events(operation_id) if event.data is not None]

    async def names(self, operation_id: str) -> list[str]:
        """The short names of their types."""
        return [data.name for data in await self.datas(operation_id)]

    async def state(self, operation_id: str) -> Operation:
        """The operation now."""
        return folded(None, *await self.events(operation_id))

    async def ended(self, operation_id: str, within: float = 10.0) -> Operation:
        """The operation once it is terminal."""
        return await self.reached(operation_id, lambda operation: operation.is_terminal, within)

    async def reached(self, operation_id: str, is_there: Callable[[Operation], Any], within: float = 10.0) -> Operation:
        """Return the operation once the condition is true."""

        async def probe() -> Operation | None:
            try:
                operation = await self.state(operation_id)
            except JournalUnavailable:
                return None  # the broker is restarting
            return operation if is_there(operation) else None

        found: Operation | None = await eventually(probe, within=within)
        assert found is not None
        return found

    async def consumer(self) -> ConsumerInfo:
        """The consumer of the action."""
        info: ConsumerInfo = await self.link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, CONSUMER)
        return info

    async def settled(self, within: float = 10.0) -> None:
        """Wait until the broker has no message for the action's runners, delivered or not."""

        async def probe() -> bool:
            info = await self.consumer()
            return (info.num_pending, info.num_ack_pending) == (0, 0)

        await eventually(probe, within=within)

    async def request_cancel(self, operation_id: str) -> RecordedEvent:
        """Record a client's cancel request for a running operation."""
        return await self.append(operation_id, CANCEL_REQUEST)

    async def append(self, operation_id: str, data: EventData) -> RecordedEvent:
        """Record an event after the last one.

        Raises:
            VersionConflict: another writer was first.
        """
        state = await self.state(operation_id)
        return await self.journal.append(
            state.kind, following(state, data), ExpectedVersion(state.stream_sequence), budget=20
        )

    async def wake(self, operation_id: str, armed_by: int) -> None:
        """Deliver a wake-up now, as a schedule does when it fires."""
        fire = subjects.fired_wake_subject(KIND, operation_id, "retry")
        await rpc.publish(self.link, fire, msgspec.json.encode(WakeUp(armed_by)), {})

    async def spy(self, subject: str) -> SubjectSpy:
        """Listen to a subject for the rest of the test."""
        spy = SubjectSpy()
        await self.link.nc.subscribe(subject, cb=spy.note)
        await self.link.nc.flush()
        return spy
