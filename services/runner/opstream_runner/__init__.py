"""What authors of actions import, re-exported by `opstream`. The process that executes them is `main`."""

from .actions import Action, ActionContext, action
from .errors import ActionFailed, InvalidAction

__all__ = ["Action", "ActionContext", "ActionFailed", "InvalidAction", "action"]
