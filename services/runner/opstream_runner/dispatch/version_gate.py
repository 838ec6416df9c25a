"""Which requests a runner of one version of an action may run: those whose input it understands.

While an author deploys another version, runners of both pull from one consumer, and requests of both are in it. A
runner leaves to others what it can't run; only what no other runner takes fails, with the reason (docs/adr/0037).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from opstream_journal.metrics.wait_gauges import Wait
from opstream_journal.outage_log import OutageLog
from opstream_runner.authoring.action import Action
from opstream_runner.containment.forks import leave_fork
from opstream_runner.errors import UnreadableInput
from opstream_runner.handler.handler_thread import run_in_thread
from opstream_schemas.action_types.type_decoder import Decode, schema_decoder
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Failed, OperationError
from opstream_schemas.operation.state import Operation

from .admission import Admit, Reject, Requeue

logger = logging.getLogger(__name__)

OTHER_VERSION_WAIT: Final = 300.0
"""Seconds that a runner leaves a request of an earlier version to others before it fails it: longer than the restart
of all runners takes, and much shorter than a deadline."""
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 10.0
_DELAY_SHARE: Final = 0.25
"""Of the time that a request has waited: the pause until it is looked at again."""
_MOST_REMEMBERED: Final = 10_000
_FORGOTTEN_AFTER: Final = 3 * _LONGEST_DELAY
"""Seconds after which a request that was left to others is no longer counted: another runner has it."""


class VersionGate:
    """Compares the version that a request was made for with that of this process's action.

    Args:
        action: the action as this process has it.
        clock: monotonic seconds.
    """

    def __init__(self, action: Action[Any, Any], clock: Callable[[], float]) -> None:
        self._action = action
        self._own = action.spec.action_version
        self._clock = clock
        self._has_decoder = False
        self._decode_closed: Decode | None = None
        self._first_seen: dict[str, float] = {}
        """By operation: when this process first left it to others."""
        self._left: dict[str, tuple[float, float]] = {}
        """By operation: when this process left it to others first, and when last."""
        self._later = OutageLog(
            logger,
            f"requests for a later version of {action.kind} wait, since this runner has version {self._own}: "
            "start a runner that has theirs",
            "",
            clock=clock,
        )
        self._earlier = OutageLog(
            logger,
            f"requests for an earlier version of {action.kind} are left to its runners, since version {self._own}, "
            f"which runs here, can't read their input; after {OTHER_VERSION_WAIT:g} s they fail",
            "",
            clock=clock,
        )

    @property
    def waits(self) -> Wait:
        """Return what this process has left to others within the last half minute."""
        now = self._clock()
        self._left = {one: times for one, times in self._left.items() if now - times[1] < _FORGOTTEN_AFTER}
        return Wait(len(self._left), max((now - first for first, _ in self._left.values()), default=0.0))

    async def admit(self, operation: Operation, action_input: msgspec.Raw) -> Admit | Requeue | Reject:
        """Decide whether this process may run the operation. Costs nothing for a request of its own version."""
        asked = operation.action_version
        if asked == self._own:
            return Admit()
        if asked > self._own:
            self._later.failed(f"operation {operation.id} is of version {asked}")
            self._note_left(operation.id)
            return Requeue(_FIRST_DELAY)
        try:
            # In a thread, because the code of an author's type may block.
            problem = await run_in_thread(partial(self._find_problem, action_input), f"input of {operation.id}")
        except RuntimeError as error:
            logger.warning("operation %s is requeued: %s", operation.id, error)
            return Requeue(_FIRST_DELAY)
        if problem:
            return self._wait_or_reject(operation, problem)
        self._first_seen.pop(operation.id, None)
        self._left.pop(operation.id, None)
        return Admit()

    def _note_left(self, operation_id: str) -> None:
        now = self._clock()
        first, _ = self._left.get(operation_id, (now, now))
        self._left[operation_id] = (first, now)
        if len(self._left) > _MOST_REMEMBERED:
            del self._left[next(iter(self._left))]

    def _find_problem(self, action_input: msgspec.Raw) -> str:
        """Return why an input is not one of this version; empty if it is. Never raises."""
        problem = ""
        try:
            if not self._has_decoder:
                self._decode_closed = schema_decoder(self._action.spec.input_schema)
                self._has_decoder = True
            if self._decode_closed is not None:
                # As closed as the API's: the type alone passes over a member that it does not know, and drops it.
                self._decode_closed(action_input)
            self._action.read_input(action_input)
        except (msgspec.MsgspecError, UnreadableInput, TypeError, UnicodeDecodeError, RecursionError) as error:
            problem = str(error)
        except BaseException:  # noqa: BLE001 - the attempt will meet it again, and record what it means
            problem = ""
        leave_fork()
        return problem

    def _wait_or_reject(self, operation: Operation, problem: str) -> Requeue | Reject:
        now = self._clock()
        waited = now - self._first_seen.setdefault(operation.id, now)
        if waited >= OTHER_VERSION_WAIT:
            del self._first_seen[operation.id]
            self._left.pop(operation.id, None)
            return Reject(Failed(error=self._error(operation.action_version, problem)))
        if len(self._first_seen) > _MOST_REMEMBERED:
            del self._first_seen[next(iter(self._first_seen))]  # another runner has had it, most likely
        self._note_left(operation.id)
        self._earlier.failed(f"operation {operation.id} is of version {operation.action_version}: {problem}")
        return Requeue(max(_FIRST_DELAY, min(_LONGEST_DELAY, waited * _DELAY_SHARE)))

    def _error(self, asked: int, problem: str) -> OperationError:
        return OperationError(
            code=ErrorCode.INVALID_INPUT,
            message=f"the request was made for version {asked} of {self._action.kind}, no runner of that version took "
            f"it, and its input is not one of version {self._own}: {problem}",
        )
