"""What authors of actions import, re-exported by `opstream`. The process that executes them is `main`."""

from .authoring.action import Action, action
from .authoring.context import ActionContext
from .errors import ActionCanceledError, ActionError, InvalidAction, RetryAfter

__all__ = ["Action", "ActionCanceledError", "ActionContext", "ActionError", "InvalidAction", "RetryAfter", "action"]
