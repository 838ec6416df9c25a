"""What a service's log says about a failed attempt, and about an operation that failed or was canceled. Pure.

Each such end is one line in the whole system, of the process that recorded it (ADR 0049).
"""

from __future__ import annotations

from typing import Final

from opstream_schemas.events import OperationError
from opstream_schemas.text import is_sealed_text, one_line, truncate_text

from .state import Operation

_MESSAGE_LIMIT: Final = 500
"""Bytes of the error's message in a log line: enough to recognise it. The status has it whole."""
_CODE_LIMIT: Final = 64


def failure_line(operation: Operation, error: OperationError, *, is_ours: bool) -> str:
    """Return one line about an operation that has failed for good: id, action, attempt and code.

    Args:
        operation: the operation.
        error: with which it failed.
        is_ours: whether opstream wrote the error's message; see `error_text`.
    """
    when = f"in attempt {operation.attempt}" if operation.attempt else "before its first attempt"
    return f"operation {operation.id} of {operation.kind} failed {when}: {error_text(error, is_ours=is_ours)}"


def canceled_line(operation: Operation) -> str:
    """Return one line about an operation that was canceled: id, action and attempt. Its events say who asked for it."""
    when = f"in attempt {operation.attempt}" if operation.attempt else "before its first attempt"
    return f"operation {operation.id} of {operation.kind} was canceled {when}"


def end_fields(operation: Operation, error: OperationError | None = None) -> dict[str, object]:
    """Return the fields of a line about an operation that ended, or about an attempt that failed with `error`."""
    fields: dict[str, object] = {
        "operationId": operation.id,
        "action": str(operation.kind),
        "attempt": operation.attempt,
    }
    return fields if error is None else {**fields, "code": _code(error)}


def error_text(error: OperationError, *, is_ours: bool) -> str:
    """Return an error as a part of one log line: its code, and its message if opstream wrote that.

    An author's message is for the client. It may quote the input, and with it what must not be in a log. Code and
    message are cut, and made one line. One that is sealed says nothing, and is left out.
    """
    if not is_ours or is_sealed_text(error.message):
        return _code(error)
    return f"{_code(error)}: {truncate_text(one_line(error.message), _MESSAGE_LIMIT)}"


def _code(error: OperationError) -> str:
    return truncate_text(one_line(str(error.code)), _CODE_LIMIT)
