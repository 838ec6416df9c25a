"""What is recorded once a handler has ended, by how it ended, why it was stopped, and what is left of its attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_runner.attempt.completion import AttemptResult
from opstream_runner.handler.invocation import UNEXPECTED_ERROR, HandlerOutcome, Postponed, Raised, Returned, Stopped
from opstream_runner.handler.stop_reason import StopReason
from opstream_schemas.action_spec import Policy
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError
from opstream_schemas.operation.commands import ConfirmCancel, Fail, ReleaseAttempt, Succeed
from opstream_schemas.operation.state import CancelWish, Operation
from tests.support.schemas.histories import History, request, started

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


def running(attempt: int = 1, *, deadline: float = 3600.0, is_canceled: bool = False) -> Operation:
    """An operation in its n-th attempt, all of which count."""
    history = History().append(request(deadline=NOW + timedelta(seconds=deadline)))
    history.append(*(started(number) for number in range(1, attempt + 1)))
    return msgspec.structs.replace(history.operation, cancel=CancelWish() if is_canceled else None)


def ending(outcome: HandlerOutcome, verdict: StopReason | None = None, *, factor: float = 1.0) -> AttemptResult:
    """The end of an attempt."""
    return AttemptResult(token="token", outcome=outcome, stop_reason=verdict, policy=POLICY, jitter=factor)


def again(error: OperationError, seconds: float) -> ReleaseAttempt:
    """Another attempt follows."""
    return ReleaseAttempt(token="token", error=error, retry_at=NOW + timedelta(seconds=seconds), counted=True)


def over(error: OperationError) -> Fail:
    """The operation has failed."""
    return Fail(token="token", error=error)


def thrice(error: OperationError) -> OperationError:
    """The error of the last attempt that this action has."""
    return msgspec.structs.replace(error, message=f"{error.message} (3 attempts failed)")


@pytest.mark.parametrize("verdict", [None, *(one for one in StopReason if one is not StopReason.LEASE_LOST)])
@pytest.mark.parametrize("is_canceled", [False, True])
def test_what_a_handler_says_on_purpose_holds(verdict: StopReason | None, is_canceled: bool) -> None:
    """A result, and a meant failure, are recorded whatever the handler was told meanwhile, in any attempt."""
    operation = running(3, is_canceled=is_canceled)
    assert ending(Returned(b"7"), verdict).command(operation, NOW) == Succeed(token="token", result=b"7")
    assert ending(failed, verdict).command(operation, NOW) == over(MEANT)
    assert not ending(Returned(b"7"), verdict).is_discarded
    assert not ending(failed, verdict).is_discarded


@pytest.mark.parametrize("outcome", [Returned(b"7"), failed, broken, postponed, Stopped(), left])
def test_whoever_is_fenced_off_is_silent(outcome: HandlerOutcome) -> None:
    """Nothing at all is recorded for an operation that is another's."""
    assert ending(outcome, StopReason.LEASE_LOST).is_discarded


@pytest.mark.parametrize(
    ("outcome", "is_silent"), [(broken, True), (Stopped(), True), (left, True), (postponed, False)]
)
def test_whoever_is_blind(outcome: HandlerOutcome, is_silent: bool) -> None:
    """Without a look at the journal only what the handler said on purpose is offered to it."""
    assert ending(outcome, StopReason.LEASE_UNVERIFIED).is_discarded == is_silent


@pytest.mark.parametrize(
    ("outcome", "verdict", "error"),
    [
        (broken, None, UNEXPECTED_ERROR),
        (broken, StopReason.TIMEOUT, TIMED_OUT),
        (Stopped(), StopReason.TIMEOUT, TIMED_OUT),
        (left, StopReason.TIMEOUT, TIMED_OUT),
    ],
)
def test_a_failed_attempt(outcome: HandlerOutcome, verdict: StopReason | None, error: OperationError) -> None:
    """While attempts are left another follows after the backoff, jitter included; the last one fails the operation,
    and says how many there were."""
    one = ending(outcome, verdict)
    assert one.command(running(1), NOW) == again(error, 2)
    assert one.command(running(2), NOW) == again(error, 4)
    assert one.command(running(3), NOW) == over(thrice(error))
    assert ending(outcome, verdict, factor=0.75).command(running(2), NOW) == again(error, 3)


@pytest.mark.parametrize("verdict", [None, StopReason.TIMEOUT, StopReason.SHUTDOWN, StopReason.LEASE_UNVERIFIED])
def test_an_attempt_that_asks_for_another(verdict: StopReason | None) -> None:
    """RetryAfter sets the pause where it is longer than the backoff, and counts."""
    assert ending(postponed, verdict).command(running(1), NOW) == again(THROTTLED, 30)
    assert ending(Postponed(THROTTLED, 1.0), verdict).command(running(2), NOW) == again(THROTTLED, 4)
    assert ending(postponed, verdict).command(running(3), NOW) == over(thrice(THROTTLED))


@pytest.mark.parametrize("deadline", [-1.0, 1.5])
def test_no_attempt_after_the_deadline(deadline: float) -> None:
    """The next look is at the deadline, if the pause goes beyond it."""
    assert ending(broken).command(running(deadline=deadline), NOW) == again(UNEXPECTED_ERROR, deadline)
    assert ending(postponed).command(running(deadline=deadline), NOW) == again(THROTTLED, deadline)


@pytest.mark.parametrize(
    ("outcome", "verdict", "error"),
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
    outcome: HandlerOutcome, verdict: StopReason | None, error: OperationError
) -> None:
    """A canceled operation whose handler raised, or never stopped, has failed; also where the wish was not yet seen."""
    assert ending(outcome, verdict).command(running(is_canceled=True), NOW) == over(error)


@pytest.mark.parametrize("verdict", [StopReason.CANCEL, StopReason.TIMEOUT, StopReason.DEADLINE])
def test_a_canceled_handler_that_stopped(verdict: StopReason) -> None:
    """It is Canceled, whichever reason came last."""
    assert ending(Stopped(), verdict).command(running(is_canceled=True), NOW) == ConfirmCancel(token="token")


@pytest.mark.parametrize("outcome", [broken, postponed, Stopped(), left])
def test_the_deadline(outcome: HandlerOutcome) -> None:
    """A handler that was stopped by it, and did not return, leaves DeadlineExceeded."""
    command = ending(outcome, StopReason.DEADLINE).command(running(), NOW)
    assert isinstance(command, Fail)
    assert command.error.code == ErrorCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("is_canceled", [False, True])
@pytest.mark.parametrize("outcome", [broken, Stopped(), left])
def test_a_runner_that_stops(outcome: HandlerOutcome, is_canceled: bool) -> None:
    """What it interrupts goes on elsewhere at once, and does not count; a wish is for whoever goes on."""
    command = ending(outcome, StopReason.SHUTDOWN).command(running(3, is_canceled=is_canceled), NOW)
    assert isinstance(command, ReleaseAttempt)
    assert (command.counted, command.retry_at, command.error.code) == (False, NOW, ErrorCode.RUNNER_STOPPED)


def test_attempts_that_do_not_count() -> None:
    """Attempts that were handed back use up nothing, and lengthen no pause."""
    operation = msgspec.structs.replace(running(5), uncounted=4)
    assert ending(broken).command(operation, NOW) == again(UNEXPECTED_ERROR, 2)
