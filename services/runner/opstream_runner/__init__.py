"""The runner: `@action` for authors, and the process that runs actions.

Authors import these exports by way of `opstream`. To read how an operation runs, begin at `dispatch/dispatcher.py`;
`main.py` builds the process, and `runner.py` joins the dispatchers of all its actions. A folder imports only from the
folders after it in this list: dispatch, attempt, handler, authoring. HTTP, snapshots and webhooks do not belong here.
"""

from .authoring.action import Action, action
from .authoring.context import ActionContext, ProgressReport, RecordingContext
from .errors import ActionCanceledError, ActionError, InvalidAction, RetryAfter

__all__ = [
    "Action",
    "ActionCanceledError",
    "ActionContext",
    "ActionError",
    "InvalidAction",
    "ProgressReport",
    "RecordingContext",
    "RetryAfter",
    "action",
]
