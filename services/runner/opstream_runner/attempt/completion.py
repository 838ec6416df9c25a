"""Records the end of an attempt, and says to the broker what becomes of its message. Caller: `attempt.py`.

The order is what makes a crash harmless: the event first, then the wake for the next attempt, then the ack. Between any
two of them the message comes again, and the decision table finds out how far this got.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_journal import (
    UNTIL_STORED,
    Connection,
    DeliveredMessage,
    EventTooLarge,
    JournalError,
    JournalFull,
    JournalUnavailable,
)
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.timers import schedule_wake_up, send_wake_up
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.handler.invocation import HandlerOutcome, Postponed, Raised, Returned, Stopped
from opstream_runner.handler.stop_reason import CLEANUP_REASONS, StopReason
from opstream_schemas.action_spec import Policy
from opstream_schemas.errors import DecisionRefused, ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import OperationError
from opstream_schemas.operation import backoff as retrying
from opstream_schemas.operation.commands import Command, ConfirmCancel, Fail, ReleaseAttempt, Succeed, deadline_outcome
from opstream_schemas.operation.state import Operation, Waiting

from .event_recorder import EventRecorder

logger = logging.getLogger(__name__)

RETRY_WAKE_UP: Final = "retry"
"""Why an operation is woken for its next attempt."""
RELEASE_WAKE_UP: Final = "handed-back"
"""Why it is woken after an attempt whose runner was told to end."""
_HAND_BACK_BUDGET: Final = 3.0
_FULL_PAUSE: Final = 2.0
_TROUBLE_DELAY: Final = 1.0
_RUNNER_STOPPED: Final = OperationError(code=ErrorCode.RUNNER_STOPPED, message="the runner was stopped")


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    Attributes:
        token: of the attempt.
        outcome: of its handler.
        verdict: why the handler was asked to stop, if it was.
        policy: of its action.
        factor: the jitter of a retry (`retrying.pause`).
    """

    token: str
    outcome: HandlerOutcome
    stop_reason: StopReason | None
    policy: Policy
    jitter: float

    @property
    def is_discarded(self) -> bool:
        """Whether nothing may be recorded: the operation is another's, or perhaps."""
        if self.stop_reason is StopReason.LEASE_UNVERIFIED:
            return isinstance(self.outcome, Stopped) or (isinstance(self.outcome, Raised) and not self.outcome.is_meant)
        return self.stop_reason is StopReason.LEASE_LOST

    def command(self, operation: Operation, now: datetime) -> Command:
        """What to record. The guard of the append has the last word on who owns the outcome.

        Args:
            operation: the state to decide on.
            now: with zone.
        """
        match self.outcome:
            case Returned(result):
                return Succeed(token=self.token, result=result)
            case Raised(error, is_meant=True):
                return Fail(token=self.token, error=error)
            case Stopped(is_left_behind=False) if operation.cancel is not None and self.stop_reason in CLEANUP_REASONS:
                return ConfirmCancel(token=self.token)
            case _ if self.stop_reason is StopReason.DEADLINE:
                return Fail(token=self.token, error=deadline_outcome(operation).error)
            case Postponed(error, seconds):
                return self._retry_or_fail(operation, now, error, seconds)
            case _ if self.stop_reason is StopReason.TIMEOUT:
                message = f"an attempt took longer than its timeout, {self.policy.timeout:g} s"
                error = OperationError(code=ErrorCode.ATTEMPT_TIMED_OUT, message=message)
                return self._retry_or_fail(operation, now, error)
            case Raised(error) if self.stop_reason in {None, StopReason.CANCEL}:
                return self._retry_or_fail(operation, now, error)
            case _:
                return ReleaseAttempt(token=self.token, error=_RUNNER_STOPPED, retry_at=now, counted=False)

    def _retry_or_fail(self, operation: Operation, now: datetime, error: OperationError, floor: float = 0.0) -> Command:
        """Try once more, unless this was the last attempt or nobody wants another."""
        failed = operation.attempts_used
        if operation.cancel is not None or failed >= self.policy.max_attempts:
            if failed > 1:
                error = msgspec.structs.replace(error, message=f"{error.message} ({failed} attempts failed)")
            return Fail(token=self.token, error=error)
        seconds = retrying.backoff_delay(
            failed,
            backoff=self.policy.backoff,
            backoff_max=self.policy.backoff_max,
            factor=self.jitter,
            floor=floor,
        )
        at = retrying.retry_time(now, seconds, operation.deadline)
        return ReleaseAttempt(token=self.token, error=error, retry_at=at, counted=True)


class Completion:
    """The end of one attempt.

    Args:
        link: the connection, to arm wakes.
        tools: clocks.
        recorder: of the attempt.
        message: the delivery that caused it.
        is_stopping: whether this process is about to end.
    """

    def __init__(
        self,
        link: Connection,
        tools: RunnerDependencies,
        recorder: EventRecorder,
        message: DeliveredMessage,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._link = link
        self._tools = tools
        self._recorder = recorder
        self._message = message
        self._is_stopping = is_stopping

    async def complete(self, ending: AttemptResult) -> None:
        """Record it, and then acknowledge the message or put it back; neither if another attempt owns the outcome.

        Raises:
            JournalError: it can't be stored at all (refused by the broker).
        """
        operation_id = self._recorder.operation.id
        crash_point(CrashPoint.RUNNER_HANDLED)
        try:
            operation = await self._record(ending)
        except DecisionRefused as refused:
            logger.warning("operation %s: the outcome came too late: %s", operation_id, refused)
        except (FoldRefused, InvalidEvent) as refused:
            logger.error("operation %s: its outcome can't be recorded: %s", operation_id, refused)  # noqa: TRY400
        except JournalUnavailable as error:
            logger.warning("operation %s was not handed back: %s; its lease will run out", operation_id, error)
        else:
            await self._acknowledge(operation)

    async def _record(self, ending: AttemptResult) -> Operation:
        """Record an outcome, however long it takes: what the action did is not done again for want of a line."""
        while True:
            budget = _HAND_BACK_BUDGET if self._is_hand_back(ending) else UNTIL_STORED
            try:
                return await self._recorder.record(self._intent(ending), budget)
            except JournalFull as full:
                if self._is_stopping():
                    raise
                operation_id = self._recorder.operation.id
                logger.error("operation %s: its outcome waits for room: %s", operation_id, full)  # noqa: TRY400
                await asyncio.sleep(_FULL_PAUSE)
            except EventTooLarge as error:
                if not isinstance(ending.outcome, Returned):
                    raise
                too_large = OperationError(code=ErrorCode.RESULT_TOO_LARGE, message=str(error))
                ending = msgspec.structs.replace(ending, outcome=Raised(too_large, is_meant=True))

    def _intent(self, ending: AttemptResult) -> Callable[[Operation], Command]:
        return lambda operation: ending.command(operation, self._tools.now())

    def _is_hand_back(self, ending: AttemptResult) -> bool:
        if isinstance(ending.outcome, Returned):
            return False  # nearly all of them, so nothing is decided twice
        command = self._intent(ending)(self._recorder.operation)
        return isinstance(command, ReleaseAttempt) and not command.counted

    async def _acknowledge(self, operation: Operation) -> None:
        waiting = operation.waiting
        if waiting is None:
            crash_point(CrashPoint.RUNNER_CONCLUDED)
            await self._message.ack_confirmed()
        elif waiting.counted:
            await self._schedule_retry(operation, waiting)
        else:
            await self._release(operation, waiting)

    async def _release(self, operation: Operation, waiting: Waiting) -> None:
        # To put the message back would do while the broker runs; one that restarts forgets it, and waits for the lease.
        try:
            await send_wake_up(self._link, operation.kind, operation.id, RELEASE_WAKE_UP, armed_by=waiting.sequence)
        except JournalError as error:
            logger.warning("operation %s is put back: %s", operation.id, error)
            await self._message.nak()
            return
        await self._message.ack_confirmed()

    async def _schedule_retry(self, operation: Operation, waiting: Waiting) -> None:
        crash_point(CrashPoint.RUNNER_ATTEMPT_FAILED)
        at = waiting.retry_at
        logger.info("operation %s: attempt %s failed; the next follows at %s", operation.id, operation.attempt, at)
        try:
            await schedule_wake_up(
                self._link, operation.kind, operation.id, RETRY_WAKE_UP, at=at, armed_by=waiting.sequence
            )
        except JournalUnavailable as error:
            # Delivered again, the message arms the wake (row 9), as after a crash.
            logger.warning("operation %s is put back: %s", operation.id, error)
            await self._message.nak(_TROUBLE_DELAY)
            return
        crash_point(CrashPoint.RUNNER_WAKE_ARMED)
        await self._message.ack_confirmed()
