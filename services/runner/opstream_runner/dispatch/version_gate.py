"""Which requests a runner of one version of an action may run: those whose input it understands, or can upcast.

While an author deploys another version, runners of both pull from one consumer, and requests of both are in it. A
runner leaves to others what it can't run; only what no other runner takes fails, with the reason (docs/adr/0037, 0064).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from opstream_journal import Connection, JournalError
from opstream_journal.metrics.wait_gauges import Wait
from opstream_journal.outage_log import OutageLog
from opstream_journal.queues.runner_records import RunnerRecords
from opstream_runner.authoring.action import Action
from opstream_runner.authoring.upcast import upcasted
from opstream_runner.containment.forks import leave_fork
from opstream_runner.errors import UnreadableInput
from opstream_runner.handler.handler_thread import run_in_thread
from opstream_schemas.action_types.type_decoder import Decode, schema_decoder
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Failed, OperationError
from opstream_schemas.names import Kind
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
_KNOWN_SECONDS: Final = 5.0
"""For how long it is known which versions runners have."""
_FORGOTTEN_AFTER: Final = 3 * _LONGEST_DELAY
"""Seconds after which a request that was left to others is no longer counted: another runner has it."""


class PresentVersions:
    """The versions of one action that runners have, or had until a moment ago, by their presence records.

    Args:
        connection: the connection.
        kind: the action.
        clock: monotonic seconds.
    """

    def __init__(self, connection: Connection, kind: Kind, clock: Callable[[], float]) -> None:
        self._records = RunnerRecords(connection)
        self._kind = kind
        self._clock = clock
        self._is_started = False
        self._seen: dict[int, float] = {}
        """By version: when a runner had it last, on the clock."""
        self._known_until = float("-inf")

    async def read(self) -> tuple[int, ...]:
        """Return those that were seen within `OTHER_VERSION_WAIT`, which is longer than a restart of all their runners.

        It asks the broker every five seconds at most. While the records can't be read, no version is seen.
        """
        now = self._clock()
        if now >= self._known_until:
            self._known_until = now + _KNOWN_SECONDS
            try:
                if not self._is_started:
                    self._is_started = True
                    await self._records.start()
                self._seen |= dict.fromkeys((await self._records.of(self._kind)).versions, now)
            except JournalError as error:
                logger.debug("the versions that runners of %s have can't be read: %s", self._kind, error)
        return tuple(version for version, at in self._seen.items() if now - at < OTHER_VERSION_WAIT)


class _Reading(NamedTuple):
    """What this version makes of an input."""

    problem: str
    """Why it is not one of this version; empty if it is."""
    document: msgspec.Raw
    """As this version has it."""


class VersionGate:
    """Compares the version that a request was made for with that of this process's action.

    Args:
        action: the action as this process has it.
        clock: monotonic seconds.
        read_versions: returns the versions that runners of the action have, or had until a moment ago.
    """

    def __init__(
        self,
        action: Action[Any, Any],
        clock: Callable[[], float],
        read_versions: Callable[[], Awaitable[tuple[int, ...]]],
    ) -> None:
        self._action = action
        self._own = action.spec.action_version
        self._clock = clock
        self._read_versions = read_versions
        self._is_mixed = False
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
            f"which runs here, can't read their input; after {OTHER_VERSION_WAIT:g} s without a runner of theirs they "
            "fail",
            "",
            clock=clock,
        )

    def expect_other_schemas(self) -> None:
        """Take it that requests of this version were made for another schema, too: look at each before it begins."""
        self._is_mixed = True

    @property
    def waits(self) -> Wait:
        """Return what this process has left to others within the last half minute."""
        now = self._clock()
        self._left = {one: times for one, times in self._left.items() if now - times[1] < _FORGOTTEN_AFTER}
        return Wait(len(self._left), max((now - first for first, _ in self._left.values()), default=0.0))

    async def admit(self, operation: Operation, action_input: msgspec.Raw) -> Admit | Requeue | Reject:
        """Decide whether this process may run the operation, and with which input.

        Costs nothing for a request of its own version.
        """
        asked = operation.action_version
        if asked == self._own and not self._is_mixed:
            return Admit()
        if asked > self._own:
            self._later.failed(f"operation {operation.id} is of version {asked}")
            self._note_left(operation.id)
            return Requeue(_FIRST_DELAY)
        try:
            # In a thread, because the code of an author's type may block.
            reading = await run_in_thread(partial(self._read, action_input, asked), f"input of {operation.id}")
        except RuntimeError as error:
            logger.warning("operation %s is requeued: %s", operation.id, error)
            return Requeue(_FIRST_DELAY)
        if reading.problem:
            return await self._wait_or_reject(operation, reading.problem)
        self._first_seen.pop(operation.id, None)
        self._left.pop(operation.id, None)
        return Admit(None if reading.document is action_input else reading.document)

    def _note_left(self, operation_id: str) -> None:
        now = self._clock()
        first, _ = self._left.get(operation_id, (now, now))
        self._left[operation_id] = (first, now)
        if len(self._left) > _MOST_REMEMBERED:
            del self._left[next(iter(self._left))]

    def _read(self, action_input: msgspec.Raw, asked: int) -> _Reading:
        """Return what this version makes of an input. Never raises."""
        problem = ""
        try:
            if asked < self._own and self._action.upcast is not None:
                is_secret = self._action.spec.policy.confidential
                action_input = msgspec.Raw(
                    upcasted(self._action.kind, self._action.upcast, action_input, asked, is_secret=is_secret)
                )
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
        return _Reading(problem, action_input)

    async def _wait_or_reject(self, operation: Operation, problem: str) -> Requeue | Reject:
        now, asked, present = self._clock(), operation.action_version, await self._read_versions()
        waited = now - self._first_seen.setdefault(operation.id, now)
        # Its runners may be busy for longer. With the number of this one, nothing tells which schema another has.
        if waited >= OTHER_VERSION_WAIT and (asked == self._own or asked not in present):
            self._first_seen.pop(operation.id, None)
            self._left.pop(operation.id, None)
            return Reject(Failed(error=self._error(asked, problem)))
        if len(self._first_seen) > _MOST_REMEMBERED:
            del self._first_seen[next(iter(self._first_seen))]  # another runner has had it, most likely
        self._note_left(operation.id)
        self._earlier.failed(f"operation {operation.id} is of version {operation.action_version}: {problem}")
        return Requeue(max(_FIRST_DELAY, min(_LONGEST_DELAY, waited * _DELAY_SHARE)))

    def _error(self, asked: int, problem: str) -> OperationError:
        if asked == self._own:
            return OperationError(
                code=ErrorCode.INVALID_INPUT,
                message=f"the request was made for another schema of version {asked} of {self._action.kind}, no runner "
                f"that has it took it, and its input does not fit the one here: {problem}",
            )
        return OperationError(
            code=ErrorCode.INVALID_INPUT,
            message=f"the request was made for version {asked} of {self._action.kind}, no runner of that version took "
            f"it, and its input is not one of version {self._own}: {problem}",
        )
