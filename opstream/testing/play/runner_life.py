"""The life of one runner on the broker in memory: it takes message after message, until its operation has ended or it
dies.

It has the dispatcher, the attempts and the journal of production. What differs is how messages come, and the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from opstream.testing.broker.memory_broker import MemoryBroker
from opstream.testing.broker.memory_connection import MAX_PAYLOAD, MemoryConnection
from opstream.testing.broker.memory_payloads import MemoryPayloads
from opstream_journal import DeliveredMessage, Journal
from opstream_journal.command_handler import CommandHandler
from opstream_journal.provisioning.topology import BODY_LIMIT
from opstream_payloads import Payloads
from opstream_payloads.documents import Documents
from opstream_projector.after_effects import Waker
from opstream_runner import Action
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.dispatch.dispatcher import Dispatcher
from opstream_runner.handler.handler_loop import HandlerLoop
from opstream_runner.steps.step_clock import StepClock
from opstream_schemas.errors import DecisionRefused
from opstream_schemas.events import decode_event
from opstream_schemas.operation.commands import FailOperation, RequestCancel, deadline_outcome
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation

from .children import Family
from .crash_moment import Plan
from .signals import SignalSender

_OTHERS: Final = "opstream/testing"
"""CloudEvents source of the events that no runner records."""
_BUDGET: Final = 1.0
_REASON: Final = "canceled by a test"


class RunnerLife:
    """One runner.

    Args:
        broker: the streams.
        plan: when it dies, and when a client cancels.
        signals: what is sent to the operation.
        family: the operation's children.
        store: of its files, and of what is too large for an event.
        action: what it runs.
        operation_id: the operation.
        name: its name in events.
        new_id: makes the ids of events and attempts.
        loop: runs everything, also async handlers.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        plan: Plan,
        signals: SignalSender,
        family: Family,
        store: MemoryPayloads,
        action: Action[Any, Any],
        operation_id: str,
        *,
        name: str,
        new_id: Callable[[], str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._broker = broker
        self._clock = broker.clock
        self._plan = plan
        self._signals = signals
        self._family = family
        self._payloads = Payloads(store, lambda: str(uuid.uuid4()))
        self._action = action
        self._id = operation_id
        self._name = name
        self._new_id = new_id
        self._loop = loop
        self._dispatcher: Dispatcher | None = None
        self._others: CommandHandler | None = None
        self.is_dead = False

    async def play(self) -> None:
        """Handle messages until the operation has ended and all are acknowledged."""
        connection = MemoryConnection(self._broker, self._publish)
        others_connection = MemoryConnection(self._broker, self._store)
        self._dispatcher = dispatcher = await self._make_dispatcher(connection)
        self._others = others = await self._make_others(others_connection)
        while not (operation := await self._operation(others)).is_terminal or not self._broker.is_settled:
            if await self._signals.send_due(operation, others, others_connection):
                continue
            wake = self._family.wake_moment(operation)
            if wake is not None and wake <= self._clock.now():
                await self._family.wake(operation, others_connection)
                continue
            delivery = self._broker.next_delivery()
            moments = filter(None, (self._broker.next_moment(), self._signals.next_moment(operation), wake))
            if delivery is not None:
                await dispatcher.handle(DeliveredMessage(connection, connection.delivered(delivery)))
            elif (moment := min(moments, default=None)) is None or (
                moment >= operation.deadline and not operation.is_terminal
            ):
                await self._sleep_until(operation.deadline)
                await self._end_overdue(others, operation)
            else:
                await self._sleep_until(moment)

    async def _make_dispatcher(self, connection: MemoryConnection) -> Dispatcher:
        journal = self._journal(connection)
        await journal.start()
        dependencies = RunnerDependencies(
            journal=journal,
            source=f"opstream/runner/{self._name}",
            now=self._clock.now,
            monotonic=self._clock.seconds,
            new_id=self._new_id,
            result_limit=BODY_LIMIT,
            jitter=lambda: 1.0,
            documents=Documents(self._payloads),
            payloads=self._payloads,
            step_clock=StepClock(self._clock.now, self._clock.advance),
        )
        handlers = HandlerLoop(loop=self._loop)
        return Dispatcher(connection, dependencies, self._action, runner=self._name, slots=1, handler_loop=handlers)

    async def _make_others(self, connection: MemoryConnection) -> CommandHandler:
        """Return what the API and the projector record with. They don't die with this runner."""
        journal = self._journal(connection)
        await journal.start()
        return CommandHandler(
            journal=journal,
            source=_OTHERS,
            now=self._clock.now,
            monotonic=self._clock.seconds,
            new_id=self._new_id,
        )

    def _journal(self, connection: MemoryConnection) -> Journal:
        return Journal(connection, max_msg_size=MAX_PAYLOAD, clock=self._clock.seconds, jitter=lambda low, _: low)

    async def _operation(self, others: CommandHandler) -> Operation:
        operation = fold(None, await others.journal.events(self._id))
        if operation is None:
            raise RuntimeError(f"operation {self._id} was not requested")
        return operation

    async def _end_overdue(self, others: CommandHandler, operation: Operation) -> None:
        """Do what the projector does at a deadline."""
        error = deadline_outcome(operation).error
        await others.handle(self._id, FailOperation(error=error), budget=_BUDGET)

    async def _wake(self, operation: Operation) -> None:
        """Do what the projector does when a wait is over before its time."""
        connection = MemoryConnection(self._broker, self._store)
        await Waker(connection).apply(operation)

    async def _sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep(self._clock.seconds_until(moment))

    async def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        """Store what this runner publishes, if it is alive, and let happen what happens before and afterwards."""
        if self.is_dead:  # what was on its way in the same turn of the loop
            await self._loop.create_future()
        if subject.startswith("children."):
            return self._family.answer(payload)
        event = decode_event(payload, 0, subject) if subject.startswith("operations.") else None
        await self._act(self._plan.come_to("before", event))
        answer = self._broker.publish(subject, payload, headers)
        await self._act(self._plan.come_to("after", event))
        return answer

    async def _act(self, what: str) -> None:
        if what == "crash":
            self.is_dead = True
            self._loop.stop()
            await self._loop.create_future()  # for ever
        if what == "cancel" and self._others is not None and self._dispatcher is not None:
            with contextlib.suppress(DecisionRefused):  # it has ended
                await self._others.handle(self._id, RequestCancel(reason=_REASON), budget=_BUDGET)
            await self._wake(await self._operation(self._others))
            self._dispatcher.notify(self._id)

    async def _store(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        return self._broker.publish(subject, payload, headers)
