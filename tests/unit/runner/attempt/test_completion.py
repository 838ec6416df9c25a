"""Which command records the end of an attempt, by the outcome, the stop reason and the attempts that are left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_runner.attempt.completion import AttemptResult
from opstream_runner.handler.invocation import (
    UNEXPECTED_ERROR,
    HandlerOutcome,
    Postponed,
    Raised,
    Returned,
    Stopped,
    Suspended,
)
from opstream_runner.handler.supervision import StopReason
from opstream_schemas.action_spec import Policy
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError
from opstream_schemas.operation.commands import BeginWait, ConfirmCancel, Fail, FailAttempt, Succeed
from opstream_schemas.operation.state import CancelWish, Operation
from tests.support.schemas.histories import History, request, started, waits

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
MEANT = OperationError(code="Meant", message="as meant")
THROTTLED = OperationError(code=503, message="throttled")
TIMED_OUT = OperationError(code=ErrorCode.ATTEMPT_TIMED_OUT, message="an attempt took longer than its timeout, 5 s")
POLICY = Policy(max_attempts=3, timeout=5.0, backoff=2.0, backoff_max=60.0)

failed = Raised(MEANT, is_meant=True)
broken = Raised(UNEXPECTED_ERROR, is_meant=False)
postponed = Postponed(THROTTLED, 30.0)
left = Stopped(is_left_behind=True)
NAP = waits(until=NOW + timedelta(seconds=60))
asleep = Suspended(NAP)


def running(attempt: int = 1, *, deadline: float = 3600.0, is_canceled: bool = False) -> Operation:
    """An operation in its n-th attempt; all attempts count."""
    history = History().append(request(deadline=NOW + timedelta(seconds=deadline)))
    history.append(*(started(number) for number in range(1, attempt + 1)))
    return msgspec.structs.replace(history.operation, cancel=CancelWish() if is_canceled else None)


def result_of(outcome: HandlerOutcome, reason: StopReason | None = None, *, factor: float = 1.0) -> AttemptResult:
    """The result of an attempt."""
    return AttemptResult(attempt=1, token="token", outcome=outcome, stop_reason=reason, policy=POLICY, jitter=factor)


def retry(error: OperationError, seconds: float) -> FailAttempt:
    """The command for another attempt."""
    return FailAttempt(token="token", error=error, retry_at=NOW + timedelta(seconds=seconds), counted=True)


def failure(error: OperationError) -> Fail:
    """The command that fails the operation."""
    return Fail(token="token", error=error)


def after_three(error: OperationError) -> OperationError:
    """The error after the third attempt, the last one that this action allows."""
    return msgspec.structs.replace(error, message=f"{error.message} (3 attempts failed)")


@pytest.mark.parametrize("reason", [None, *(one for one in StopReason if one is not StopReason.LEASE_LOST)])
@pytest.mark.parametrize("is_canceled", [False, True])
def test_a_result_and_a_meant_failure_are_always_recorded(reason: StopReason | None, is_canceled: bool) -> None:
    """A result and a meant failure are recorded whatever the stop reason, also in the last attempt."""
    operation = running(3, is_canceled=is_canceled)
    assert result_of(Returned(b"7"), reason).command(operation, NOW) == Succeed(token="token", result=b"7")
    assert result_of(failed, reason).command(operation, NOW) == failure(MEANT)
    assert not result_of(Returned(b"7"), reason).is_discarded
    assert not result_of(failed, reason).is_discarded


@pytest.mark.parametrize("outcome", [Returned(b"7"), failed, broken, postponed, Stopped(), left])
def test_an_attempt_that_lost_its_lease_records_nothing(outcome: HandlerOutcome) -> None:
    """Once another attempt owns the operation, no outcome is recorded."""
    assert result_of(outcome, StopReason.LEASE_LOST).is_discarded


@pytest.mark.parametrize(
    ("outcome", "is_discarded"), [(broken, True), (Stopped(), True), (left, True), (postponed, False)]
)
def test_an_attempt_that_can_not_verify_its_lease(outcome: HandlerOutcome, is_discarded: bool) -> None:
    """Without a verified lease only what the handler did on purpose is offered to the journal."""
    assert result_of(outcome, StopReason.LEASE_UNVERIFIED).is_discarded == is_discarded


@pytest.mark.parametrize(
    ("outcome", "reason", "error"),
    [
        (broken, None, UNEXPECTED_ERROR),
        (broken, StopReason.TIMEOUT, TIMED_OUT),
        (Stopped(), StopReason.TIMEOUT, TIMED_OUT),
        (left, StopReason.TIMEOUT, TIMED_OUT),
    ],
)
def test_a_failed_attempt(outcome: HandlerOutcome, reason: StopReason | None, error: OperationError) -> None:
    """While attempts are left, another follows after the backoff with its jitter. The last one fails the operation, and
    its error has the number of attempts."""
    result = result_of(outcome, reason)
    assert result.command(running(1), NOW) == retry(error, 2)
    assert result.command(running(2), NOW) == retry(error, 4)
    assert result.command(running(3), NOW) == failure(after_three(error))
    assert result_of(outcome, reason, factor=0.75).command(running(2), NOW) == retry(error, 3)


@pytest.mark.parametrize("reason", [None, StopReason.TIMEOUT, StopReason.SHUTDOWN, StopReason.LEASE_UNVERIFIED])
def test_an_attempt_that_asks_for_another(reason: StopReason | None) -> None:
    """RetryAfter sets the delay if it is longer than the backoff. The attempt counts."""
    assert result_of(postponed, reason).command(running(1), NOW) == retry(THROTTLED, 30)
    assert result_of(Postponed(THROTTLED, 1.0), reason).command(running(2), NOW) == retry(THROTTLED, 4)
    assert result_of(postponed, reason).command(running(3), NOW) == failure(after_three(THROTTLED))


@pytest.mark.parametrize("deadline", [-1.0, 1.5])
def test_no_attempt_after_the_deadline(deadline: float) -> None:
    """If the delay ends after the deadline, the retry is scheduled for the deadline."""
    assert result_of(broken).command(running(deadline=deadline), NOW) == retry(UNEXPECTED_ERROR, deadline)
    assert result_of(postponed).command(running(deadline=deadline), NOW) == retry(THROTTLED, deadline)


@pytest.mark.parametrize(
    ("outcome", "reason", "error"),
    [
        (broken, StopReason.CANCEL, UNEXPECTED_ERROR),
        (postponed, StopReason.CANCEL, THROTTLED),
        (broken, None, UNEXPECTED_ERROR),
        (postponed, None, THROTTLED),
        (broken, StopReason.TIMEOUT, TIMED_OUT),
        (left, StopReason.TIMEOUT, TIMED_OUT),
    ],
)
def test_nothing_is_retried_after_a_cancel_request(
    outcome: HandlerOutcome, reason: StopReason | None, error: OperationError
) -> None:
    """A canceled operation fails if its handler raised or did not stop, also if it was not asked to stop yet."""
    assert result_of(outcome, reason).command(running(is_canceled=True), NOW) == failure(error)


@pytest.mark.parametrize("reason", [StopReason.CANCEL, StopReason.TIMEOUT, StopReason.DEADLINE])
def test_a_canceled_handler_that_stopped(reason: StopReason) -> None:
    """The operation is Canceled, whichever reason came last."""
    assert result_of(Stopped(), reason).command(running(is_canceled=True), NOW) == ConfirmCancel(token="token")


@pytest.mark.parametrize("outcome", [broken, postponed, Stopped(), left, asleep])
def test_the_deadline(outcome: HandlerOutcome) -> None:
    """A handler that the deadline stopped, and that did not return, fails its operation as DeadlineExceeded."""
    command = result_of(outcome, StopReason.DEADLINE).command(running(), NOW)
    assert isinstance(command, Fail)
    assert command.error.code == ErrorCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("is_canceled", [False, True])
@pytest.mark.parametrize("outcome", [broken, Stopped(), left])
def test_a_runner_that_stops(outcome: HandlerOutcome, is_canceled: bool) -> None:
    """An interrupted attempt does not count, and the next may follow at once; it then handles a cancel request."""
    command = result_of(outcome, StopReason.SHUTDOWN).command(running(3, is_canceled=is_canceled), NOW)
    assert isinstance(command, FailAttempt)
    assert (command.counted, command.retry_at, command.error.code) == (False, NOW, ErrorCode.RUNNER_STOPPED)


@pytest.mark.parametrize("reason", [None, StopReason.TIMEOUT, StopReason.SHUTDOWN, StopReason.LEASE_UNVERIFIED])
def test_a_sleep(reason: StopReason | None) -> None:
    """It is recorded, also in the last attempt, by a runner that stops, and beyond a timeout."""
    assert result_of(asleep, reason).command(running(3), NOW) == BeginWait(token="token", data=NAP)
    assert not result_of(asleep, reason).is_discarded


@pytest.mark.parametrize("reason", [None, StopReason.CANCEL, StopReason.DEADLINE, StopReason.SHUTDOWN])
def test_no_sleep_after_a_cancel_request(reason: StopReason | None) -> None:
    """Nothing of it runs any more, so it is canceled."""
    assert result_of(asleep, reason).command(running(is_canceled=True), NOW) == ConfirmCancel(token="token")


def test_attempts_that_do_not_count() -> None:
    """Released attempts use up no attempt, and make no delay longer."""
    operation = msgspec.structs.replace(running(5), uncounted=4)
    assert result_of(broken).command(operation, NOW) == retry(UNEXPECTED_ERROR, 2)


POSSIBLE = [
    (outcome, reason, is_canceled)
    for outcome in (Returned(b"7"), failed, broken, postponed, Stopped(), left, asleep)
    for reason in (None, *StopReason)
    for is_canceled in (False, True)
    # A cancel request is in the operation, and a handler that is canceled is never left behind.
    if not result_of(outcome, reason).is_discarded
    and (reason is not StopReason.CANCEL or (is_canceled and outcome != left))
]


@pytest.mark.parametrize(("outcome", "reason", "is_canceled"), POSSIBLE)
def test_is_release_agrees_with_the_command(
    outcome: HandlerOutcome, reason: StopReason | None, is_canceled: bool
) -> None:
    """`is_release` is True exactly for the results whose command releases the attempt uncounted."""
    result = result_of(outcome, reason)
    command = result.command(running(1, is_canceled=is_canceled), NOW)
    assert result.is_release == (isinstance(command, FailAttempt) and not command.counted)
