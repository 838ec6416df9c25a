"""What a handler uses: progress, exceptions, and a context that a unit test makes."""

import math
import threading
from typing import Any

import pytest

from opstream_runner import ActionCanceledError, ActionContext, ActionError
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
