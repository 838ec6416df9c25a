"""The state of a confidential operation as its readers see it: opened by its key, or without what was erased. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.events import OperationError
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.operation_key import OperationKey, is_sealed
from opstream_schemas.seals.sealed_events import ChangeText, change_error

_replace: Final = msgspec.structs.replace


def open_operation(operation: Operation, key: OperationKey) -> Operation:
    """Return the state with all that its key has sealed as it was.

    Raises:
        SealBroken: a value was sealed by another key, or changed since.
    """
    opened = _with_texts(operation, key.open)
    if isinstance(operation.result, msgspec.Raw):
        opened = _replace(opened, result=key.open_json(operation.result))
    return opened


def blank_operation(operation: Operation, erasure: Erasure) -> Operation:
    """Return the state without what was sealed: the status, the times and the code of the error are left.

    A message that opstream wrote, as that of a deadline, was not sealed, and stays.
    """
    blank = _with_texts(operation, lambda text: "" if is_sealed(text) else text)
    return _replace(blank, result=msgspec.UNSET, result_payload=None, erased=erasure)


def _with_texts(operation: Operation, change: ChangeText) -> Operation:
    cancel = operation.cancel
    return _replace(
        operation,
        message=change(operation.message),
        reason=change(operation.reason),
        cancel=cancel if cancel is None else _replace(cancel, reason=change(cancel.reason)),
        error=_changed_error(operation.error, change),
        attempt_error=_changed_error(operation.attempt_error, change),
    )


def _changed_error(error: OperationError | None, change: ChangeText) -> OperationError | None:
    return None if error is None else change_error(error, change)
