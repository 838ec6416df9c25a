"""What authors of actions import, re-exported by `opstream`. The process that executes them is `main`."""

from .authoring.action import Action, action
from .authoring.context import ActionContext
from .errors import ActionCanceled, ActionFailed, InvalidAction, RetryAfter

__all__ = ["Action", "ActionCanceled", "ActionContext", "ActionFailed", "InvalidAction", "RetryAfter", "action"]
