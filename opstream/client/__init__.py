"""The Python client: submits actions to an opstream service and follows their operations.

Begin with `flows`: it has the logic of each call as a generator that does no I/O. `io_requests` is what a flow may
request; `sync` and `aio` are the public clients, whose `drivers` do that I/O with httpx (`transport`). `models` and
`errors` are what callers get; `urls`, `responses`, `retries` and `sse` are pure helpers of the flows; `tokens` gets
credentials from a command; `submits` has what a submit carries; `files`, `erasure`, `lists`, `schedules` and `signals`
have the other calls.

Only `sync`, `aio`, `transport` and `drivers` may import httpx. No module here knows the broker, the journal or a
service's code.
`from opstream import OperationsClient` imports this package on first use, so that runners do not load httpx.
"""

from .aio import AsyncOperationsClient
from .errors import (
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    OperationsError,
    RequestRefused,
    ServiceUnavailable,
    TokenUnavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from .models import BulkPreview, Operation, OperationCount, OperationEvent, OperationPage, Upload
from .sync import OperationsClient
from .tokens import TokenCommand
from .transport import new_operation_id

__all__ = [
    "AsyncOperationsClient",
    "BulkPreview",
    "InvalidRequest",
    "Operation",
    "OperationCanceled",
    "OperationCount",
    "OperationEvent",
    "OperationFailed",
    "OperationPage",
    "OperationsClient",
    "OperationsError",
    "RequestRefused",
    "ServiceUnavailable",
    "TokenCommand",
    "TokenUnavailable",
    "UnexpectedAnswer",
    "Upload",
    "WaitTimeout",
    "new_operation_id",
]
