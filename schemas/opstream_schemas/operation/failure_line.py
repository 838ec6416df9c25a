"""What a service's log says about a failed attempt or a failed operation. Pure."""

from __future__ import annotations

from typing import Final

from opstream_schemas.events import OperationError
from opstream_schemas.text import one_line, truncate_text

from .state import Operation

_MESSAGE_LIMIT: Final = 500
"""Bytes of the error's message in a log line: enough to recognise it. The status has it whole."""
_CODE_LIMIT: Final = 64


def failure_line(operation: Operation, error: OperationError) -> str:
    """Return one line about an operation that has failed for good: id, action, attempt, code and message.

    Code and message are the author's, or quote a client's input: they are cut, and made one line.
    """
    when = f"in attempt {operation.attempt}" if operation.attempt else "before its first attempt"
    return f"operation {operation.id} of {operation.kind} failed {when}: {error_text(error)}"


def error_text(error: OperationError) -> str:
    """Return code and message of an error as a part of one log line."""
    code = truncate_text(one_line(str(error.code)), _CODE_LIMIT)
    return f"{code}: {truncate_text(one_line(error.message), _MESSAGE_LIMIT)}"
