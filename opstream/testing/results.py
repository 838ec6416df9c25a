"""What a run returns: the outcome of an operation, its events and its steps."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import msgspec

from opstream.testing.broker.memory_payloads import MemoryPayloads
from opstream.testing.play.children import ChildRun
from opstream.testing.play.crash_moment import Plan
from opstream_runner import Action
from opstream_schemas.events import OperationError, RecordedEvent, StepFailed, StepStarted, StepSucceeded
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation, Status
from opstream_schemas.payloads.payload_ref import PayloadRef

from .errors import RunRefused

T = TypeVar("T")


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded of one step."""

    name: str
    key: str = ""
    is_recorded: bool
    """True if its result is recorded, so that no later attempt runs it again."""
    result: Any = None
    """The recorded result, as JSON decodes it; None without one."""
    attempt: int
    """That recorded the result; without one, the last that began it or failed in it."""
    tries: int = 0
    """How often that attempt called its function."""
    errors: tuple[OperationError, ...] = ()
    """What it failed with, one for each attempt in which all its tries failed."""


class RunResult(Generic[T]):
    """One operation, from its request to its end.

    Attributes:
        operation: its last state.
        events: all of its events, in order.
        seconds: how long it took, by the virtual clock.
        children: those that it has begun, in order.
        crashed_at: the moment at which its runner died; None if it lived.
        canceled_at: the moment at which its client canceled; None if none did.
        moments: those at which its runner could have died, or its client canceled, in order.
        crashes: with `crash_at="every step"`, the runs whose runners died, one for each of these moments.
        cancels: with `cancel_at="every step"`, the runs that were canceled.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        events: tuple[RecordedEvent, ...],
        *,
        seconds: float,
        plan: Plan,
        children: tuple[ChildRun, ...] = (),
        store: MemoryPayloads,
    ) -> None:
        operation = fold(None, events)
        if operation is None:
            raise ValueError("an operation has events")
        self._result_type = action.result_type
        self.operation: Operation = operation
        self.events = events
        self.seconds = seconds
        self.children = children
        self._store = store
        self.crashed_at = plan.crashed
        self.canceled_at = plan.canceled
        self.moments = tuple(plan.passed)
        self.crashes: tuple[RunResult[T], ...] = ()
        self.cancels: tuple[RunResult[T], ...] = ()

    @property
    def status(self) -> Status:
        """The outcome: `Succeeded`, `Failed` or `Canceled`."""
        return self.operation.status

    @property
    def error(self) -> OperationError | None:
        """The error that its client reads; None if it did not fail."""
        return self.operation.error

    @property
    def files(self) -> dict[str, bytes]:
        """The files that the action has attached, as a client downloads them, by name."""
        return {one.file_name: self._store.read(one.payload) for one in self.operation.attachments}

    @property
    def attempts(self) -> int:
        """How many attempts were started."""
        return self.operation.attempt

    @property
    def names(self) -> tuple[str, ...]:
        """The short names of its events' types, in order."""
        return tuple(one.data.name if one.data is not None else one.type for one in self.events)

    @property
    def result(self) -> T:
        """What the action returned, as the type that it says it returns.

        Raises:
            RunRefused: it did not succeed; the message has its error.
        """
        result = self.recorded_result
        if result is None:
            raise RunRefused(f"there is no result, the operation is {self}: look at 'status' and 'error' first")
        return cast("T", msgspec.json.decode(result, type=self._result_type))

    @property
    def recorded_result(self) -> bytes | None:
        """The JSON of the result, wherever it is stored; None without one."""
        return self._document(self.operation.result, self.operation.result_payload)

    @property
    def steps(self) -> tuple[StepRun, ...]:
        """What is recorded of its steps, in the order in which they came."""
        found: dict[tuple[str, str], StepRun] = {}
        for event in self.events:
            data = event.data
            if isinstance(data, StepStarted | StepSucceeded | StepFailed):
                place = (data.step, data.key)
                result = self._document(data.result, data.result_payload) if isinstance(data, StepSucceeded) else None
                found[place] = _after(found.get(place), data, result)
        return tuple(found.values())

    def step(self, name: str, key: str | int = "") -> StepRun:
        """Return what is recorded of a step.

        Args:
            name: its name.
            key: its key; empty without one.

        Raises:
            RunRefused: nothing is; the message names the steps that are recorded.
        """
        found = {(one.name, one.key): one for one in self.steps}
        try:
            return found[name, str(key)]
        except KeyError:
            known = ", ".join(repr(step) + (f" with key {own!r}" if own else "") for step, own in found) or "none"
            wanted = repr(name) + (f" with key {str(key)!r}" if key != "" else "")
            raise RunRefused(f"no step {wanted} is recorded; there are: {known}") from None

    def __str__(self) -> str:
        """Return the outcome in one line."""
        error, result = self.error, self.recorded_result
        if error is not None:
            return f"{self.status} with {error.code}: {error.message}"
        return self.status.value if result is None else f"{self.status} with {result.decode()}"

    def __repr__(self) -> str:
        """Return the outcome and the names of the events."""
        return f"<run: {self}; {', '.join(self.names)}>"

    def _document(self, document: msgspec.Raw | msgspec.UnsetType, payload: PayloadRef | None) -> bytes | None:
        if payload is not None:
            return self._store.read(payload)
        return bytes(document) if isinstance(document, msgspec.Raw) else None


def _after(before: StepRun | None, data: StepStarted | StepSucceeded | StepFailed, result: bytes | None) -> StepRun:
    errors = before.errors if before is not None else ()
    if isinstance(data, StepSucceeded):
        return StepRun(
            name=data.step,
            key=data.key,
            is_recorded=True,
            result=None if result is None else msgspec.json.decode(result),
            attempt=data.attempt,
            tries=data.tries,
            errors=errors,
        )
    if isinstance(data, StepFailed):
        errors = (*errors, data.error)
    if before is not None and before.is_recorded:
        return msgspec.structs.replace(before, errors=errors)
    tries = data.tries if isinstance(data, StepFailed) else 0
    return StepRun(name=data.step, key=data.key, is_recorded=False, attempt=data.attempt, tries=tries, errors=errors)
