"""What a handler uses: progress, exceptions, and a context that a unit test makes."""

import math
import threading
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any

import pytest

from opstream_runner import ActionCanceledError, ActionContext, ActionError, RecordingContext
from opstream_runner.authoring.context import COMPLETED, discard_progress

pytestmark = pytest.mark.unit


async def test_progress_is_reported_as_a_float() -> None:
    """Whatever number the author gives, the report gets a float and the text."""
    heard: list[tuple[float, str]] = []

    def report(percent: float, message: str) -> Any:
        heard.append((percent, message))
        return COMPLETED

    ctx = ActionContext(operation_id="op-1", report=report)
    await ctx.progress(0)
    await ctx.progress(100, "done")

    expected = [(0.0, ""), (100.0, "done")]
    assert expected == heard
    assert all(isinstance(percent, float) for percent, _ in heard)


@pytest.mark.parametrize("percent", [-0.001, 100.001, math.nan, math.inf, -math.inf])
def test_progress_out_of_range_is_refused_at_once(percent: float) -> None:
    """The author gets the error even if nothing awaits the call."""
    with pytest.raises(ValueError, match="between 0 and 100"):
        ActionContext(operation_id="op-1").progress(percent)


@pytest.mark.parametrize("percent", [None, "5", b"5", "half", 1j, [5], 10**400])
def test_progress_that_is_no_number(percent: Any) -> None:
    """Every kind of handler gets the same error, at the call."""
    with pytest.raises(TypeError, match=f"^progress takes a number of percent, not {type(percent).__name__}$"):
        ActionContext(operation_id="op-1").progress(percent)


@pytest.mark.parametrize("message", [None, 5, b"text", ValueError("text"), ["text"]])
def test_progress_with_a_message_that_is_no_text(message: Any) -> None:
    """Every kind of handler gets the same error, at the call."""
    with pytest.raises(TypeError, match=f"^the message of progress must be a str, not {type(message).__name__}$"):
        ActionContext(operation_id="op-1").progress(5, message)


async def test_progress_of_other_numbers() -> None:
    """What can be a float is a number, and a text of another class is a text."""
    heard: list[tuple[float, str]] = []

    def report(percent: float, message: str) -> Any:
        heard.append((percent, message))
        return COMPLETED

    class Word(StrEnum):
        HALF = "half way"

    ctx = ActionContext(operation_id="op-1", report=report)
    for number in (Decimal("12.5"), Fraction(25, 2), 12.5):
        await ctx.progress(number, Word.HALF)  # type: ignore[arg-type]
    assert heard == [(12.5, "half way")] * 3
    assert {type(one) for pair in heard for one in pair} == {float, str}


async def test_progress_goes_nowhere_in_a_unit_test() -> None:
    """A context that an author makes needs no broker, and awaiting it twice is fine."""
    over = discard_progress(1.0, "x")

    assert await over is None
    assert await over is None


def test_a_failure_says_what_the_client_will_read() -> None:
    """Code, message and target are the author's; the exception's text is for logs."""
    failure = ActionError("ClientOutOfDate", "update", target="version")

    assert (failure.code, failure.message, failure.target) == ("ClientOutOfDate", "update", "version")
    assert str(failure) == "ClientOutOfDate: update"
    assert not ActionError(400, "no").target


def test_a_context_of_a_unit_test_is_a_first_attempt() -> None:
    """A unit test gives the arguments that it needs and leaves out the rest."""
    ctx = ActionContext(operation_id="op-1")

    assert ctx.attempt == 1
    assert not ctx.resource_id
    assert not ctx.traceparent


def test_a_context_of_a_unit_test_is_not_canceled() -> None:
    """A unit test's handler is not asked to stop unless the test does so, which it may do in the middle."""
    ActionContext(operation_id="op-1").check_canceled()
    assert not ActionContext(operation_id="op-1").cancel_requested

    asked = threading.Event()
    ctx = ActionContext(operation_id="op-1", attempt=2, cancel_requested=asked.is_set)
    ctx.check_canceled()
    asked.set()

    assert ctx.cancel_requested
    with pytest.raises(ActionCanceledError, match="attempt 2 of operation op-1 was asked to stop"):
        ctx.check_canceled()


def test_what_ends_a_canceled_handler_is_no_exception() -> None:
    """`except Exception` around a step does not swallow it."""
    assert not issubclass(ActionCanceledError, Exception)


async def test_a_context_for_tests() -> None:
    """It keeps every report, and is asked to stop once the test says so."""
    ctx = RecordingContext(resource_id="42", attempt=2)
    await ctx.progress(10, "begun")
    ctx.progress(10.5)
    assert ctx.reports == [(10.0, "begun"), (10.5, "")]
    assert (ctx.operation_id, ctx.resource_id, ctx.attempt) == ("op-1", "42", 2)
    assert not ctx.cancel_requested
    ctx.check_canceled()
    ctx.cancel()
    assert ctx.cancel_requested
    with pytest.raises(ActionCanceledError):
        ctx.check_canceled()
    with pytest.raises(ValueError, match="between 0 and 100"):
        ctx.progress(101)
