"""Durable long-running operations behind plain HTTP: what users import."""

from opstream_runner import Action, ActionContext, ActionFailed, InvalidAction, action

from ._version import __version__

__all__ = ["Action", "ActionContext", "ActionFailed", "InvalidAction", "__version__", "action"]
