"""What is recorded once a handler has ended: the outcome, another attempt, or nothing. Pure. Caller: `attempt.py`.

A function of the operation, so that it is decided anew on whatever came in between: after a cancel request, for one,
nothing is tried again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from opstream_runner.handler.invocation import Outcome, Postponed, Raised, Returned, Stopped
from opstream_runner.handler.stop_reason import PATIENT, Verdict
from opstream_schemas.action_spec import Policy
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError
from opstream_schemas.operation import backoff as retrying
from opstream_schemas.operation.commands import Command, ConfirmCancel, Fail, HandBack, Succeed, deadline_exceeded
from opstream_schemas.operation.fold import Operation

_RUNNER_STOPPED: Final = OperationError(code=ErrorCode.RUNNER_STOPPED, message="the runner was stopped")


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    Attributes:
        token: of the attempt.
        outcome: of its handler.
        verdict: why the handler was asked to stop, if it was.
        policy: of its action.
        factor: the jitter of a retry (`retrying.pause`).
    """

    token: str
    outcome: Outcome
    verdict: Verdict | None
    policy: Policy
    factor: float

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be recorded: the operation is another's, or perhaps."""
        if self.verdict is Verdict.BLIND:
            return isinstance(self.outcome, Stopped) or (isinstance(self.outcome, Raised) and not self.outcome.is_meant)
        return self.verdict is Verdict.FENCED

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
            case Stopped(is_left_behind=False) if operation.cancel is not None and self.verdict in PATIENT:
                return ConfirmCancel(token=self.token)
            case _ if self.verdict is Verdict.DEADLINE:
                return Fail(token=self.token, error=deadline_exceeded(operation).error)
            case Postponed(error, seconds):
                return self._again(operation, now, error, seconds)
            case _ if self.verdict is Verdict.TIMEOUT:
                message = f"an attempt took longer than its timeout, {self.policy.timeout:g} s"
                error = OperationError(code=ErrorCode.ATTEMPT_TIMED_OUT, message=message)
                return self._again(operation, now, error)
            case Raised(error) if self.verdict in {None, Verdict.CANCEL}:
                return self._again(operation, now, error)
            case _:
                return HandBack(token=self.token, error=_RUNNER_STOPPED, retry_at=now, counted=False)

    def _again(self, operation: Operation, now: datetime, error: OperationError, floor: float = 0.0) -> Command:
        """Try once more, unless this was the last attempt or nobody wants another."""
        failed = operation.attempts_used
        if operation.cancel is not None or failed >= self.policy.max_attempts:
            if failed > 1:
                error = msgspec.structs.replace(error, message=f"{error.message} ({failed} attempts failed)")
            return Fail(token=self.token, error=error)
        seconds = retrying.pause(
            failed,
            backoff=self.policy.backoff,
            backoff_max=self.policy.backoff_max,
            factor=self.factor,
            floor=floor,
        )
        at = retrying.retry_at(now, seconds, operation.deadline)
        return HandBack(token=self.token, error=error, retry_at=at, counted=True)
