"""What authors of actions import, re-exported by `opstream`. The process that executes them is `main`."""

from .actions import Action, action
from .context import ActionContext
from .errors import ActionCanceled, ActionFailed, InvalidAction, RetryAfter

__all__ = ["Action", "ActionCanceled", "ActionContext", "ActionFailed", "InvalidAction", "RetryAfter", "action"]
