"""The end of an attempt: which command records its outcome, and what happens to its message.

`AttemptResult` chooses the command; it does no I/O. `Completion` appends the event, then schedules the wake-up for the
next attempt, then acknowledges the message. The order makes a crash harmless: after a crash between two of these steps
the message is delivered again, and the decision table continues from what is recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
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
from opstream_journal.outage_log import OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.timers import schedule_wake_up, send_wake_up
from opstream_payloads.errors import StoreUnavailable
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.handler.invocation import HandlerOutcome, Postponed, Raised, Returned, Stopped, Suspended
from opstream_runner.handler.supervision import CLEANUP_REASONS, StopReason, StopSignal
from opstream_schemas.action_spec import Policy
from opstream_schemas.errors import DecisionRefused, ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import OperationError
from opstream_schemas.operation.backoff import backoff_delay, retry_time
from opstream_schemas.operation.commands import (
    Command,
    ConfirmCancel,
    Fail,
    FailAttempt,
    Succeed,
    deadline_outcome,
)
from opstream_schemas.operation.dispatch_decision import RETRY_REASON, wait_reason
from opstream_schemas.operation.failure_line import canceled_line, end_fields, error_text, failure_line
from opstream_schemas.operation.state import Operation, Status, Waiting
from opstream_schemas.payloads.payload_ref import PayloadRef

from .event_recorder import EventRecorder
from .wait_outcome import begin_wait

logger = logging.getLogger(__name__)

RELEASE_WAKE_UP: Final = "handed-back"
"""Why a wake-up is sent at once: a stopping runner released the operation."""
_RELEASE_BUDGET: Final = 3.0
"""Seconds to record a release. The process is about to end, and without the record the lease runs out."""
_JOURNAL_FULL_DELAY: Final = 2.0
_BROKER_TROUBLE_DELAY: Final = 1.0
_NOTHING: Final[Mapping[int, msgspec.Raw]] = {}
_RUNNER_STOPPED: Final = OperationError(code=ErrorCode.RUNNER_STOPPED, message="the runner was stopped")


_STORE_OUTAGE: Final = OutageLog(
    logger, "results wait for the payload store", "results are stored in the payload store again"
)


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    Attributes:
        attempt: the attempt's number, for the log.
        token: the attempt's token.
        outcome: what the handler did.
        stop_reason: why the handler was asked to stop; None if it was not.
        policy: the action's policy.
        jitter: the factor of the backoff before a retry (`backoff_delay`).
        payload: where the result is, if it is too large for an event.
    """

    attempt: int
    token: str
    outcome: HandlerOutcome
    stop_reason: StopReason | None
    policy: Policy
    jitter: float
    payload: PayloadRef | None = None

    @property
    def is_discarded(self) -> bool:
        """Return True if nothing may be recorded, because another attempt owns the operation or may own it.

        With an unverified lease, only what the handler did on purpose is offered to the journal.
        """
        if self.stop_reason is StopReason.LEASE_UNVERIFIED:
            return isinstance(self.outcome, Stopped) or (isinstance(self.outcome, Raised) and not self.outcome.is_meant)
        return self.stop_reason is StopReason.LEASE_LOST

    @property
    def is_release(self) -> bool:
        """Return True if the runner interrupted the handler: another attempt follows at once and does not count."""
        if self.stop_reason in CLEANUP_REASONS:
            return False
        if isinstance(self.outcome, Raised):
            return not self.outcome.is_meant and self.stop_reason is not None
        return isinstance(self.outcome, Stopped)

    @property
    def is_error_ours(self) -> bool:
        """Return True if opstream wrote the message of the error, if there is one: then a log may show it."""
        if isinstance(self.outcome, Raised):
            return not self.outcome.is_meant
        return not isinstance(self.outcome, Postponed)

    def command(self, operation: Operation, now: datetime, payloads: Mapping[int, msgspec.Raw] = _NOTHING) -> Command:
        """Return the command that records this result.

        It depends on the operation's current state: after a cancel request, for example, nothing is retried. The
        append's expected version decides who owns the outcome.

        Args:
            operation: the state to decide on.
            now: with time zone.
            payloads: of the operation's signals.
        """
        match self.outcome:
            case _ if self.is_release:
                return self._release(now)
            case Returned(result):
                return Succeed(token=self.token, result=result, payload=self.payload)
            case Suspended(wait) if self._may_wait(operation):
                return begin_wait(self.token, wait, operation, payloads)
            case Raised(error, is_meant=True):
                return Fail(token=self.token, error=error)
            case Stopped(is_left_behind=False) | Suspended() if self._has_cleaned_up(operation):
                return ConfirmCancel(token=self.token)
            case _ if self.stop_reason is StopReason.DEADLINE:
                return Fail(token=self.token, error=deadline_outcome(operation).error)
            case Postponed(error, seconds):
                return self._retry_or_fail(operation, now, error, seconds)
            case _ if self.stop_reason is StopReason.TIMEOUT:
                message = f"an attempt took longer than its timeout, {self.policy.timeout:g} s"
                error = OperationError(code=ErrorCode.ATTEMPT_TIMED_OUT, message=message)
                return self._retry_or_fail(operation, now, error)
            case Raised(error):
                return self._retry_or_fail(operation, now, error)
            case Stopped() | Suspended():
                return self._release(now)

    def _may_wait(self, operation: Operation) -> bool:
        """Return True if a wait may begin: none has been canceled, or it is part of the clean-up."""
        if operation.cancel is not None and not (operation.cleans_up and self.stop_reason is StopReason.CANCEL):
            return False
        return self.stop_reason is not StopReason.DEADLINE

    def _has_cleaned_up(self, operation: Operation) -> bool:
        """Return True if a canceled handler has stopped, and not before its clean-up has ended, if that is to be."""
        if not operation.cleans_up:
            return operation.cancel is not None
        return self.stop_reason is StopReason.CANCEL and isinstance(self.outcome, Stopped)

    def _release(self, now: datetime) -> FailAttempt:
        return FailAttempt(token=self.token, error=_RUNNER_STOPPED, retry_at=now, counted=False)

    def _retry_or_fail(
        self, operation: Operation, now: datetime, error: OperationError, min_seconds: float = 0.0
    ) -> Command:
        """Retry after a backoff. Fail if this was the last attempt, or if a client has canceled.

        A clean-up is tried again, too.
        """
        failed = operation.attempts_used
        is_over = operation.cancel is not None and not operation.cleans_up
        if is_over or failed >= self.policy.max_attempts:
            if failed > 1:
                error = msgspec.structs.replace(error, message=f"{error.message} ({failed} attempts failed)")
            return Fail(token=self.token, error=error)
        seconds = backoff_delay(
            failed,
            backoff=self.policy.backoff,
            backoff_max=self.policy.backoff_max,
            factor=self.jitter,
            floor=min_seconds,
        )
        at = retry_time(now, seconds, operation.deadline)
        return FailAttempt(token=self.token, error=error, retry_at=at, counted=True)


class Completion:
    """Records the result of one attempt and settles its message.

    Args:
        connection: schedules wake-ups.
        dependencies: the clock.
        recorder: the attempt's recorder.
        message: the delivery that caused the attempt.
        stop_signal: the attempt's signal.
        policy: of the action.
    """

    def __init__(
        self,
        connection: Connection,
        dependencies: RunnerDependencies,
        recorder: EventRecorder,
        message: DeliveredMessage,
        stop_signal: StopSignal,
        policy: Policy,
    ) -> None:
        self._policy = policy
        self._connection = connection
        self._now = dependencies.now
        self._documents = dependencies.documents
        self._recorder = recorder
        self._message = message
        self._stop_signal = stop_signal

    async def complete(self, result: AttemptResult) -> None:
        """Record the result, then acknowledge the message or requeue it.

        If another attempt owns the outcome, do neither: the broker would take this delivery's ack or nak for the
        successor's.

        Raises:
            JournalError: the broker refused the event for good.
        """
        operation_id = self._recorder.operation.id
        if result.is_discarded:
            why = result.stop_reason.value if result.stop_reason else ""
            # Of a lease that was given up the log says so already, once for all operations.
            level = logging.DEBUG if result.stop_reason is StopReason.LEASE_UNVERIFIED else logging.WARNING
            logger.log(level, "operation %s: attempt %s records no outcome: %s", operation_id, result.attempt, why)
            return
        crash_point(CrashPoint.RUNNER_HANDLED)
        try:
            operation = await self._record(result)
        except DecisionRefused as error:
            logger.warning("operation %s: the outcome came too late: %s", operation_id, error)
        except (FoldRefused, InvalidEvent) as error:
            step = (
                "'opstream audit' shows its events; 'opstream verify' says whether the journal has lost some; if they "
                "are of a newer version, update opstream; 'opstream fail --force' ends it if it is still open"
            )
            text = "operation %s: its outcome can't be recorded: %s; next step: %s"
            logger.error(text, operation_id, error, step)  # noqa: TRY400 - no bug here
        except JournalUnavailable as error:
            logger.warning("operation %s was not released: %s; its lease will run out", operation_id, error)
        else:
            await self._settle_message(operation, result)

    async def _record(self, result: AttemptResult) -> Operation:
        # An outcome is retried without limit: the action's work must not be repeated because one event is missing.
        while True:
            try:
                result = await self._store_result(result)
                return await self._record_once(result)
            except StoreUnavailable as error:
                if self._stop_signal.reason is StopReason.SHUTDOWN:
                    raise JournalUnavailable(str(error), maybe_stored=False) from error
                _STORE_OUTAGE.failed(f"operation {self._recorder.operation.id}: {error}")
                await asyncio.sleep(_BROKER_TROUBLE_DELAY)
            except JournalFull as error:
                if self._stop_signal.reason is StopReason.SHUTDOWN:
                    raise
                # The log has the condition `StorageLimitReached`, once for all operations, with the count of refusals.
                logger.debug("operation %s: its outcome waits for room: %s", self._recorder.operation.id, error)
                await asyncio.sleep(_JOURNAL_FULL_DELAY)
            except EventTooLarge as error:
                if not isinstance(result.outcome, Returned):
                    raise
                too_large = OperationError(code=ErrorCode.RESULT_TOO_LARGE, message=str(error))
                result = msgspec.structs.replace(result, outcome=Raised(too_large, is_meant=True))

    async def _store_result(self, result: AttemptResult) -> AttemptResult:
        """Seal the result if it has to be. Store one that is too large for an event, before the event that names it."""
        outcome = result.outcome
        if result.payload is not None or result.is_release or not isinstance(outcome, Returned):
            return result
        if (key := self._recorder.key) is not None:
            outcome = Returned(bytes(key.seal_json(msgspec.Raw(outcome.result.strip()))))
            result = msgspec.structs.replace(result, outcome=outcome)
        if self._documents.is_inline(outcome.result):
            return result
        payload = await self._documents.store(self._recorder.operation.id, outcome.result.strip())
        _STORE_OUTAGE.recovered()
        crash_point(CrashPoint.RUNNER_PAYLOAD_STORED)
        return msgspec.structs.replace(result, payload=payload)

    async def _record_once(self, result: AttemptResult) -> Operation:
        budget = _RELEASE_BUDGET if result.is_release else UNTIL_STORED

        def build(operation: Operation) -> Command:
            return result.command(operation, self._now(), self._recorder.payloads())

        return await self._recorder.record(build, budget)

    async def _settle_message(self, operation: Operation, result: AttemptResult) -> None:
        waiting = operation.waiting
        if waiting is None:
            if (error := operation.error) is not None:
                line = failure_line(operation, error, is_ours=result.is_error_ours)
                logger.warning("%s", line, extra=end_fields(operation, error))
            elif operation.status is Status.CANCELED:
                logger.info("%s", canceled_line(operation), extra=end_fields(operation))
            crash_point(CrashPoint.RUNNER_CONCLUDED)
            # Not confirmed: if this ack is lost, the message comes again, and the decision table acknowledges it.
            await self._message.ack()
        elif operation.wait is not None:
            await self._begin_wait(operation, waiting)
        elif waiting.counted:
            await self._schedule_retry(operation, waiting, result)
        else:
            await self._wake_another_runner(operation, waiting)

    async def _wake_another_runner(self, operation: Operation, waiting: Waiting) -> None:
        # A nak would be enough while the broker runs. A broker that restarts forgets the nak and waits for the lease.
        try:
            await send_wake_up(
                self._connection,
                operation.kind,
                operation.id,
                RELEASE_WAKE_UP,
                armed_by=waiting.sequence,
                queue=self._policy.served_queue(operation.queue),
            )
        except JournalError as error:
            logger.warning("operation %s is requeued: %s", operation.id, error)
            await self._message.nak()
            return
        await self._message.ack_confirmed()

    async def _schedule_retry(self, operation: Operation, waiting: Waiting, result: AttemptResult) -> None:
        crash_point(CrashPoint.RUNNER_ATTEMPT_FAILED)
        at, error = waiting.retry_at, operation.attempt_error
        logger.info(
            "operation %s of %s: attempt %s failed: %s; the next follows at %s",
            operation.id,
            operation.kind,
            operation.attempt,
            error_text(error, is_ours=result.is_error_ours) if error else "",
            at.isoformat(" ", "milliseconds"),
            extra=end_fields(operation, error),
        )
        await self._arm(operation, waiting, RETRY_REASON)

    async def _begin_wait(self, operation: Operation, waiting: Waiting) -> None:
        crash_point(CrashPoint.RUNNER_WAITING)
        logger.debug("operation %s waits until %s", operation.id, waiting.retry_at)
        await self._arm(operation, waiting, wait_reason(operation))

    async def _arm(self, operation: Operation, waiting: Waiting, why: str) -> None:
        """Schedule the wake-up for the next attempt, then acknowledge the message."""
        try:
            at = operation.wait.ready_at if operation.wait is not None else None  # a signal that came before
            await schedule_wake_up(
                self._connection,
                operation.kind,
                operation.id,
                why,
                at=at or waiting.retry_at,
                armed_by=waiting.sequence,
                queue=self._policy.served_queue(operation.queue),
            )
        except (JournalUnavailable, JournalFull) as error:
            # The next delivery of the message schedules the wake-up (row 9), as after a crash.
            level = logging.DEBUG if isinstance(error, JournalFull) else logging.WARNING
            logger.log(level, "operation %s is requeued: %s", operation.id, error)
            await self._message.nak(_BROKER_TROUBLE_DELAY)
            return
        crash_point(CrashPoint.RUNNER_WAKE_ARMED)
        await self._message.ack_confirmed()
