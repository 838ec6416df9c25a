"""What users import: `action` and its errors to write actions, `OperationsClient` to call them.

`opstream.events` is for subscribers. The `opstream` command begins in `cli/app.py`. Names are loaded when they are
first used: a module of actions loads no HTTP library, and a supervisor no actions. Nothing here does work of its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from opstream_runner import (
        Action,
        ActionCanceledError,
        ActionContext,
        ActionError,
        Child,
        ChildFailed,
        ChildRefused,
        FileNotAttached,
        FileNotFetched,
        InvalidAction,
        InvalidStep,
        InvalidWait,
        ProgressReport,
        RecordingContext,
        RetryAfter,
        StepInputChanged,
        StepInterrupted,
        StepResultTooLarge,
        UploadedFile,
        WaitTimedOut,
        action,
    )

    from .client import (
        AsyncOperationsClient,
        BulkPreview,
        InvalidRequest,
        Operation,
        OperationCanceled,
        OperationCount,
        OperationEvent,
        OperationFailed,
        OperationPage,
        OperationsClient,
        OperationsError,
        RequestRefused,
        ServiceUnavailable,
        TokenCommand,
        TokenUnavailable,
        UnexpectedAnswer,
        Upload,
        WaitTimeout,
    )

__all__ = [
    "Action",
    "ActionCanceledError",
    "ActionContext",
    "ActionError",
    "AsyncOperationsClient",
    "BulkPreview",
    "Child",
    "ChildFailed",
    "ChildRefused",
    "FileNotAttached",
    "FileNotFetched",
    "InvalidAction",
    "InvalidRequest",
    "InvalidStep",
    "InvalidWait",
    "Operation",
    "OperationCanceled",
    "OperationCount",
    "OperationEvent",
    "OperationFailed",
    "OperationPage",
    "OperationsClient",
    "OperationsError",
    "ProgressReport",
    "RecordingContext",
    "RequestRefused",
    "RetryAfter",
    "ServiceUnavailable",
    "StepInputChanged",
    "StepInterrupted",
    "StepResultTooLarge",
    "TokenCommand",
    "TokenUnavailable",
    "UnexpectedAnswer",
    "Upload",
    "UploadedFile",
    "WaitTimedOut",
    "WaitTimeout",
    "__version__",
    "action",
]

_AUTHORING_NAMES = frozenset(
    {
        "Action",
        "ActionCanceledError",
        "ActionContext",
        "ActionError",
        "Child",
        "ChildFailed",
        "ChildRefused",
        "FileNotAttached",
        "FileNotFetched",
        "InvalidAction",
        "InvalidStep",
        "InvalidWait",
        "ProgressReport",
        "RecordingContext",
        "RetryAfter",
        "StepInputChanged",
        "StepInterrupted",
        "StepResultTooLarge",
        "UploadedFile",
        "WaitTimedOut",
        "action",
    }
)
"""Those of `__all__` that authors of actions use. All others but the version are the client's."""
_EVENT_NAMES = {"ActionFailed": "ActionError", "ActionCanceled": "ActionCanceledError"}
"""Events whose names authors look for here, and the errors that they mean."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any exported object
    """Load a name when it is first used."""
    if name in __all__:
        value = getattr(import_module("opstream_runner" if name in _AUTHORING_NAMES else f"{__name__}.client"), name)
        globals()[name] = value
        return value
    if name in _EVENT_NAMES:
        # Not an AttributeError: `from opstream import` would replace its text.
        raise ImportError(
            f"opstream has no {name}: what an action raises is opstream.{_EVENT_NAMES[name]}, "
            f"and the event that subscribers get is opstream.events.{name}"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
