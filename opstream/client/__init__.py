"""The client: submit actions to an opstream service and follow their operations, from Python.

`from opstream import OperationsClient` is the same; it loads this package only then, so that actions stay light.
"""

from .aio import AsyncOperationsClient
from .errors import (
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    OperationsError,
    RequestRefused,
    ServiceUnavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from .models import Operation, OperationEvent
from .sync import OperationsClient
from .transport import new_operation_id

__all__ = [
    "AsyncOperationsClient",
    "InvalidRequest",
    "Operation",
    "OperationCanceled",
    "OperationEvent",
    "OperationFailed",
    "OperationsClient",
    "OperationsError",
    "RequestRefused",
    "ServiceUnavailable",
    "UnexpectedAnswer",
    "WaitTimeout",
    "new_operation_id",
]
