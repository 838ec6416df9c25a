"""The children of an operation that a test plays: a result that the test gives, or a stage of their own.

A child runs from its request to its end when its parent asks for it, on a clock of its own that begins at that moment.
What it has recorded then appears in the parent's journal when the parent's clock comes to it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from opstream.testing.broker.memory_broker import MemoryBroker
from opstream.testing.errors import RunRefused
from opstream.testing.virtual_time import VirtualClock
from opstream_journal import Connection
from opstream_journal.stores.timers import send_wake_up
from opstream_runner import Action, ActionContext
from opstream_runner import action as make_action
from opstream_runner.authoring.action import called_function
from opstream_schemas.children.lineage import MAX_DEPTH, child_id
from opstream_schemas.children.plan import wakes_parent
from opstream_schemas.children.requests import ChildItem, ChildrenAnswer, ChildrenRequest, decode_children_request
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError, ParentRef, RecordedEvent, Requested
from opstream_schemas.operation.dispatch_decision import WAIT_REASON
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation, Status

from .request import encoded_input, requested

PlayChild = Callable[[Action[Any, Any], str, VirtualClock, Requested], Sequence[RecordedEvent]]
"""Plays a child from its request to its end, and returns its events."""


class ChildRun(msgspec.Struct, frozen=True, kw_only=True):
    """A child that an operation has begun, and what became of it."""

    operation_id: str
    action: str
    """`resource:action`."""
    resource_id: str
    input: Any
    """As JSON decodes it."""
    name: str
    """By which its parent's action knows it."""
    key: str = ""
    index: int | None = None
    """Its place among those that were begun together; None for one that was begun alone."""
    status: Status
    ended_at: datetime


class Family:
    """The children of one operation. They outlive its runners.

    Args:
        action: that of the operation; other actions of its module run as children.
        given: by `resource:action`: the result of such children, a function that makes it of their input, the
            exception with which they fail, or another action.
        broker: of the operation.
        parent: returns the operation's events.
        play: plays a child.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        given: Mapping[str, object],
        broker: MemoryBroker,
        parent: Callable[[], Sequence[RecordedEvent]],
        play: PlayChild,
    ) -> None:
        self._module = inspect.unwrap(called_function(action.handler)).__module__
        self._given = given
        self._broker = broker
        self._clock = broker.clock
        self._parent = parent
        self._play = play
        self._runs: dict[str, ChildRun] = {}
        self._woken: set[int] = set()
        self._problem: RunRefused | None = None

    @property
    def runs(self) -> tuple[ChildRun, ...]:
        """All children, in the order in which they were begun."""
        return tuple(self._runs.values())

    def answer(self, payload: bytes) -> bytes:
        """Begin children, as the API does. Those that exist are the same ones, however often they are asked for."""
        request = decode_children_request(payload)
        operation = fold(None, self._parent())
        if operation is None:
            raise RuntimeError(f"operation {request.parent} was not requested")
        why = ""
        try:
            for item in request.items:
                why = why or self._begin(operation, request, item)
        except RunRefused as problem:  # which `check` raises: the handler must not catch it
            self._problem = self._problem or problem
            why = str(problem)
        error = OperationError(code=ErrorCode.CHILD_REFUSED, message=why) if why else None
        return msgspec.json.encode(ChildrenAnswer(error=error, is_final=error is not None))

    def check(self) -> None:
        """Raise what the test has done wrong, if anything.

        Raises:
            RunRefused: an action was begun of which neither the test nor the module of the parent knows anything.
        """
        if self._problem is not None:
            raise self._problem

    def wake_moment(self, operation: Operation) -> datetime | None:
        """Return when the end of a child wakes the operation; None if it waits for none, or is awake already."""
        wait = operation.wait
        if operation.waiting is None or wait is None or wait.child is None or operation.waiting.sequence in self._woken:
            return None
        begun = self._parent()[-1].time
        moments = []
        for run in self._runs.values():
            if (run.name, run.key) != (wait.name, wait.key):
                continue
            if wakes_parent(wait.child, run.operation_id, has_succeeded=run.status is Status.SUCCEEDED):
                moments.append(run.ended_at)
            elif wait.child.any_from is not None and run.ended_at >= begun:
                moments.append(max(wait.child.any_from, run.ended_at))
        return min(moments, default=None)

    async def wake(self, operation: Operation, connection: Connection) -> None:
        """Wake the operation, as the projector does."""
        if operation.waiting is not None:
            sequence = operation.waiting.sequence
            self._woken.add(sequence)
            await send_wake_up(connection, operation.kind, operation.id, WAIT_REASON, armed_by=sequence)

    def _begin(self, parent: Operation, request: ChildrenRequest, item: ChildItem) -> str:
        """Begin a child, unless it exists. Return why the API would refuse it; empty if it would not.

        Raises:
            RunRefused: nobody knows the action.
        """
        own_id = child_id(parent.id, request.name, request.key, item.index)
        if own_id in self._runs:
            return ""
        depth = 1 if parent.parent is None else parent.parent.depth + 1
        if depth > MAX_DEPTH:
            return f"operation {parent.id} has {MAX_DEPTH} parents above it already: does an action begin itself?"
        action, clock = self._find(item), VirtualClock(self._clock.now())
        try:
            document = bytes(item.input) if action.input_type is _AnyInput else encoded_input(action, bytes(item.input))
        except RunRefused as refusal:
            return f"{item.action} ({own_id}): {refusal}"
        data = requested(
            action,
            document,
            operation_id=own_id,
            resource_id=item.resource_id,
            caller=parent.caller,
            clock=clock,
        )
        lineage = ParentRef(
            id=parent.id, own_id=parent.own_id, name=request.name, key=request.key, index=item.index, depth=depth
        )
        deadline = min(data.deadline, parent.deadline)
        events = self._play(action, own_id, clock, msgspec.structs.replace(data, parent=lineage, deadline=deadline))
        outcome = fold(None, events)
        if outcome is None:
            raise RuntimeError(f"child {own_id} has no events")
        for event in (events[0], events[-1]):  # all that its parent reads of it
            self._broker.store_at(event.time, event.subject, event.stored)
        self._runs[own_id] = ChildRun(
            operation_id=own_id,
            action=item.action,
            resource_id=item.resource_id,
            input=msgspec.json.decode(item.input),
            name=request.name,
            key=request.key,
            index=item.index,
            status=outcome.status,
            ended_at=events[-1].time,
        )
        return ""

    def _find(self, item: ChildItem) -> Action[Any, Any]:
        if item.action in self._given:
            found = self._given[item.action]
            return found if isinstance(found, Action) else _stand_in(item, found)
        module = sys.modules.get(self._module)
        known = vars(module).values() if module is not None else ()
        for one in known:
            if isinstance(one, Action) and str(one.kind) == item.action:
                return one
        raise RunRefused(
            f"the operation began {item.action} as a child, which is no action of the module {self._module}: give its "
            f"result or the action, run(..., children={{{item.action!r}: ...}})"
        )


class _AnyInput(msgspec.Struct):
    """Any JSON object: nobody knows what the action would take."""


def _stand_in(item: ChildItem, given: object) -> Action[Any, Any]:
    """Return an action that does what a test gives in its place."""

    async def stand_in(_request: _AnyInput, _ctx: ActionContext) -> Any:  # noqa: ANN401 - what the test says
        if isinstance(given, BaseException):
            raise given
        return given(msgspec.json.decode(item.input)) if callable(given) else given

    return make_action(item.action)(stand_in)
