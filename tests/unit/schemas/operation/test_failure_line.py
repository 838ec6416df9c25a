"""The log line of an operation that failed."""

from __future__ import annotations

import msgspec
import pytest

from opstream_schemas.events import OperationError
from opstream_schemas.operation.failure_line import canceled_line, end_fields, error_text, failure_line
from tests.support.schemas.histories import History, request, started

pytestmark = pytest.mark.unit


def test_the_line() -> None:
    """It names the operation, its action, the attempt and the code; the message only if opstream wrote it."""
    history = History().append(request())
    error = OperationError(code="OutOfStock", message="there is none left", target="isbn")
    operation = history.operation
    name = f"operation {operation.id} of {operation.kind} failed"
    assert failure_line(operation, error, is_ours=False) == f"{name} before its first attempt: OutOfStock"
    history.append(started(1))
    line = failure_line(history.operation, error, is_ours=True)
    assert line == f"{name} in attempt 1: OutOfStock: there is none left"
    assert canceled_line(history.operation) == f"{name.removesuffix('failed')}was canceled in attempt 1"
    assert end_fields(history.operation, error) == {
        "operationId": operation.id,
        "action": str(operation.kind),
        "attempt": 1,
        "code": "OutOfStock",
    }


@pytest.mark.parametrize("text", ["a\r\nb", "a\x00\x1b[2J", "\u202eabc", "\u2028", "\x85"])
def test_hostile_texts(text: str) -> None:
    """Whatever a text holds, the line has only characters that can be printed."""
    assert error_text(OperationError(code=text, message=text), is_ours=True).isprintable()


def test_long_texts() -> None:
    """Code and message are cut, each by itself, at a character."""
    line = error_text(OperationError(code="c" * 300, message="é" * 4000), is_ours=True)
    code, _, message = line.partition(": ")
    assert (len(code.encode()), len(message.encode())) == (64, 499)
    assert (code[-1], message[-1]) == ("…", "…")


def test_a_number_as_code() -> None:
    """A code may be an HTTP status."""
    assert error_text(msgspec.convert({"code": 503, "message": "later"}, OperationError), is_ours=True) == "503: later"
