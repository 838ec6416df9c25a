"""The runner: `@action` for authors, and the process that runs actions.

Authors import these exports by way of `opstream`. To read how an operation runs, begin at `dispatch/dispatcher.py`;
`main.py` builds the process, and `runner.py` joins the dispatchers of all its actions. A folder imports only from the
folders after it in this list: dispatch, attempt, handler, authoring, steps and waits, containment. HTTP, snapshots and
webhooks do not belong here.
"""

from .authoring.action import Action, action
from .authoring.context import ActionContext
from .authoring.files.uploaded_file import UploadedFile
from .authoring.recording_context import ProgressReport, RecordingContext
from .errors import ActionCanceledError, ActionError, FileNotAttached, FileNotFetched, InvalidAction, RetryAfter
from .steps.children import Child, ChildFailed, ChildRefused
from .steps.step_errors import InvalidStep, StepInputChanged, StepInterrupted, StepResultTooLarge
from .waits.wait_errors import InvalidWait, WaitTimedOut

__all__ = [
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
]
