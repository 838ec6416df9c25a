"""Calling a handler: its input and its context arrive, and its result is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from opstream_runner import Action, ActionContext, action
from opstream_runner.handler.invocation import Postponed, Raised, Returned
from opstream_schemas.errors import ErrorCode
from tests.support.runner.invocations import (
    KINDS,
    Body,
    Input,
    asynchronous,
    plain,
    run,
)

pytestmark = pytest.mark.unit

both = pytest.mark.parametrize("kind", KINDS)


@both
@pytest.mark.parametrize(
    ("result", "encoded"),
    [
        (None, b"null"),
        ({"id": "7"}, b'{"id":"7"}'),
        (Input(3), b'{"count":3}'),
        ([1, "é"], '[1,"é"]'.encode()),
        (msgspec.Raw(b'{"ready": true}'), b'{"ready": true}'),
    ],
)
async def test_a_result(kind: Callable[[Body], Action[..., Any]], result: Any, encoded: bytes) -> None:
    """A handler's return value is the result, as JSON."""
    assert await run(kind(lambda: result)) == Returned(encoded)


async def test_the_input_and_the_context_arrive() -> None:
    """A handler gets its decoded input and the context of its operation."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> Any:
        return [request.count, ctx.operation_id, ctx.attempt]

    assert await run(handler, given=b'{"count":7}') == Returned(b'[7,"op-1",2]')


async def test_a_plain_handler_has_a_thread_of_its_own() -> None:
    """A plain handler blocks neither the event loop nor the end of the process."""
    assert await run(plain(lambda: [threading.current_thread().daemon, threading.current_thread().name])) == Returned(
        b'[true,"book:act op-1"]'
    )
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize(
    "given", [b'{"count":"7"}', b'{"more":1}', b"[]", b'{"count":-1}', b'{"count":1e400}', b"{", b"", b'"\xff"']
)
async def test_input_that_does_not_fit_the_type(given: bytes) -> None:
    """Input that passed a schema but does not fit the handler's type is the client's fault, and final."""
    outcome = await run(asynchronous(lambda: None), given=given)
    assert isinstance(outcome, Raised)
    assert (outcome.error.code, outcome.is_meant, bool(outcome.error.message)) == (ErrorCode.INVALID_INPUT, True, True)


async def test_an_input_type_that_raises_what_it_should_not(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the input type's own code is final, since it would come again; only the log has its text."""
    outcome = await run(asynchronous(lambda: None), given=b'{"count":101}')
    assert isinstance(outcome, Raised)
    assert outcome.is_meant
    assert outcome.error.code == ErrorCode.INVALID_INPUT
    assert outcome.error.message.startswith("the code of the input's type raised ")
    assert "no such number" not in outcome.error.message
    assert "no such number" in caplog.text
    assert "the input type of book:act raised " in caplog.text


@pytest.mark.parametrize(("count", "code"), [(98, "OutOfPaper"), (99, 503), (100, 500)])
async def test_what_an_input_type_raises_on_purpose(count: int, code: int | str) -> None:
    """`ActionError` and `RetryAfter` mean the same as in the handler; memory may be there the next time."""
    outcome = await run(asynchronous(lambda: None), given=b'{"count":%d}' % count)
    assert isinstance(outcome, Raised | Postponed)
    assert outcome.error.code == code
