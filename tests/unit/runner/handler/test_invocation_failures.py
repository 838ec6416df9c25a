"""Calling a handler that fails: each end becomes one outcome, and no exception passes."""

from __future__ import annotations

import asyncio
import http
import logging
import math
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import msgspec
import pytest

from opstream_runner import Action, ActionContext, ActionError, RetryAfter, action
from opstream_runner.handler.child_protocol import decode_child_message, encode_frame
from opstream_runner.handler.invocation import UNSHOWN_ERROR, Postponed, Raised
from opstream_schemas.events import Failed, OperationError
from opstream_schemas.operation.commands import Fail
from tests.support.runner.invocations import (
    KINDS,
    UNEXPECTED,
    Body,
    Input,
    asynchronous,
    failed,
    plain,
    raising,
    run,
)
from tests.support.schemas.histories import History, request, started

pytestmark = pytest.mark.unit

both = pytest.mark.parametrize("kind", KINDS)


class Code(StrEnum):
    OLD = "ClientOutOfDate"


@both
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ActionError(404, "no such book"), failed(404, "no such book")),
        (ActionError("ClientOutOfDate", "update", target="version"), failed("ClientOutOfDate", "update", "version")),
        (ActionError(Code.OLD, "update"), failed("ClientOutOfDate", "update")),
        (ActionError(http.HTTPStatus.CONFLICT, "taken"), failed(409, "taken")),
        (ActionError("Bad", ValueError("too long")), failed("Bad", "too long")),  # type: ignore[arg-type]
        (ActionError("", ""), failed("", "")),
    ],
)
async def test_a_meant_failure(kind: Callable[[Body], Action[..., Any]], error: ActionError, outcome: Raised) -> None:
    """The client reads the author's ActionError, in the types that an event can contain."""
    result = await run(kind(raising(error)))
    assert result == outcome
    assert isinstance(result, Raised)
    assert {type(result.error.code), type(result.error.message)} <= {int, str}


class Forgetful(ActionError):
    """An ActionError whose author forgot to call its base class."""

    def __init__(self) -> None:
        return


@both
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RetryAfter(5, "throttled"), Postponed(OperationError(code=503, message="throttled"), 5.0)),
        (RetryAfter(0), Postponed(OperationError(code=503, message="the action asks for another attempt later"), 0.0)),
    ],
)
async def test_another_attempt(kind: Callable[[Body], Action[..., Any]], error: RetryAfter, outcome: Postponed) -> None:
    """RetryAfter has the earliest start of the next attempt, and a message for code 503."""
    assert await run(kind(raising(error))) == outcome


@both
@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "-5"),
        (-0.1, "-0.1"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (Decimal("-Infinity"), "-Infinity"),
        ("a", "'a'"),
        (None, "None"),
        ([], "of type list"),
        (10**5000, "of type int"),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_another_attempt_at_no_time(
    kind: Callable[[Body], Action[..., Any]], seconds: Any, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RetryAfter with seconds that can't be waited for still asks for another attempt, and the log names the value."""
    outcome = await run(kind(raising(RetryAfter(seconds, "later"))))
    assert outcome == Postponed(OperationError(code=503, message="later"), 0.0)
    fault = f"mend the action: its seconds are {shown}, and must be a finite number from 0 on; the action's backoff"
    assert fault in caplog.text


async def test_another_attempt_at_a_time_as_text(caplog: pytest.LogCaptureFixture) -> None:
    """The value of a header is text: a number is a number."""
    outcome = await run(asynchronous(raising(RetryAfter("5", "later"))))  # type: ignore[arg-type]
    assert outcome == Postponed(OperationError(code=503, message="later"), 5.0)
    assert not caplog.records


def in_groups(error: BaseException, levels: int) -> BaseException:
    """Return the exception of a task group in a task group."""
    for _ in range(levels):
        error = BaseExceptionGroup("unhandled errors in a TaskGroup", [error])
    return error


@both
@pytest.mark.parametrize("levels", [1, 3])
async def test_the_only_exception_of_a_group(kind: Callable[[Body], Action[..., Any]], levels: int) -> None:
    """A task group wraps what one of its tasks raises: it means the same as without the group."""
    meant = ActionError("OutOfPaper", "none left", target="tray")
    assert await run(kind(raising(in_groups(meant, levels)))) == failed("OutOfPaper", "none left", "tray")
    later = in_groups(RetryAfter(3, "later"), levels)
    assert await run(kind(raising(later))) == Postponed(OperationError(code=503, message="later"), 3.0)


async def test_a_task_group_whose_task_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The other tasks are cancelled, and their cancellations are not part of the group."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        async def fail() -> None:
            raise ActionError("OutOfPaper", "none left")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())
            tasks.create_task(fail())

    assert await run(handler) == failed("OutOfPaper", "none left")
    assert not caplog.records


async def test_several_exceptions_of_a_group(caplog: pytest.LogCaptureFixture) -> None:
    """Two errors that mean different things mean neither: another attempt follows, and the log has both."""
    several = ExceptionGroup("both", [ActionError("OutOfPaper", "none left"), RetryAfter(3, "later")])
    assert await run(asynchronous(raising(in_groups(several, 2)))) == UNEXPECTED
    assert "OutOfPaper: none left" in caplog.text


class Wordless:
    """It has no text."""

    def __str__(self) -> str:
        raise LookupError("secret")


CODE: Final = "its code is {}, and must be a word like 'OutOfPaper' or an HTTP status like 409"


@both
@pytest.mark.parametrize(
    ("make", "outcome", "fault"),
    [
        (lambda: ActionError(1.5, "half"), failed(500, "half"), CODE.format("of type float")),  # type: ignore[arg-type]
        (lambda: ActionError(True, "yes", target="t"), failed(500, "yes", "t"), CODE.format("of type bool")),
        (lambda: ActionError(None, "no"), failed(500, "no"), CODE.format("of type NoneType")),  # type: ignore[arg-type]
        (lambda: ActionError(10**5000, "m"), failed(500, "m"), CODE.format("a number beyond 64 bits")),
        (lambda: ActionError("a\ud800", "m\ud800"), failed("a?", "m?"), "its code must be at most 256 bytes of UTF-8"),
        (lambda: ActionError("c" * 300, "m"), failed("c" * 253 + "…", "m"), "its code must be at most 256 bytes"),
        (
            lambda: ActionError("Bad", Wordless(), target=Wordless()),  # type: ignore[arg-type]
            failed("Bad", UNSHOWN_ERROR),
            "its message is of type Wordless, whose __str__ raises LookupError; its target is of type Wordless",
        ),
        (Forgetful, failed(500, UNSHOWN_ERROR), "it has no message: call super().__init__(code, message)"),
    ],
)
async def test_a_failure_that_no_event_could_hold(
    kind: Callable[[Body], Action[..., Any]],
    make: Callable[[], ActionError],
    outcome: Raised,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An ActionError of any values is final, and a client reads what can be recorded; the log says what to mend."""

    def fail() -> Any:
        raise make()  # here, since it must not fail in the handler either

    assert await run(kind(fail)) == outcome
    assert decode_child_message(encode_frame(outcome)[4:]) == outcome
    (line,) = [one.getMessage() for one in caplog.records if "can't be recorded as it is" in one.getMessage()]
    assert fault in line
    decided = History().append(request(), started()).act(Fail(token="token-1", error=outcome.error))
    assert isinstance(decided, Failed)
    assert decided.error == outcome.error


@pytest.mark.parametrize("text", ["\ud800", "x" * 10_000, "\0" * 10_000, "é" * 4095])
async def test_a_failure_of_any_text_can_be_recorded(text: str) -> None:
    """Lone surrogates and long texts in a failure still make an event."""
    outcome = await run(asynchronous(raising(ActionError(text, text, target=text))))
    assert isinstance(outcome, Raised)
    history = History().append(request(), started())
    decided = history.act(Fail(token="token-1", error=outcome.error))
    assert isinstance(decided, Failed)
    assert len(decided.error.message.encode()) <= 4096


@both
@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(7),
        StopAsyncIteration(),
        RecursionError("too deep"),
        MemoryError(),
        asyncio.CancelledError("by itself"),
        TimeoutError(),
        ExceptionGroup("several", [ValueError("one"), ActionError(400, "two")]),
        BaseExceptionGroup("worse", [SystemExit(1)]),
        msgspec.ValidationError("not the input's"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_unexpected_error(
    kind: Callable[[Body], Action[..., Any]], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Any other exception is a 500 without details; its traceback is in the log, with the operation."""
    assert await run(kind(raising(error))) == UNEXPECTED
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "op-1" in record.getMessage()
    assert record.exc_info is not None
    assert "in body" in caplog.text


async def test_endless_recursion() -> None:
    """A handler that exhausts the stack fails like any other."""

    def body() -> Any:
        return body()

    assert [await run(asynchronous(body)), await run(plain(body))] == [UNEXPECTED, UNEXPECTED]
