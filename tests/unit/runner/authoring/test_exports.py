"""The names of `opstream`, for authors of actions, and of `opstream.events`, for subscribers, do not clash."""

from __future__ import annotations

import pytest

import opstream
import opstream.events
from opstream import ActionCanceledError, ActionError
from opstream.events import ActionCanceled, ActionFailed

pytestmark = pytest.mark.unit


def test_one_program_imports_the_exceptions_and_the_events() -> None:
    """A program that raises the exceptions and receives the events imports both without renaming either."""
    assert issubclass(ActionError, Exception)
    assert issubclass(ActionCanceledError, BaseException)
    assert issubclass(ActionFailed, opstream.events.Event)
    assert issubclass(ActionCanceled, opstream.events.Event)


def test_no_name_is_exported_twice() -> None:
    """`opstream` and `opstream.events` export no name in common."""
    assert set(opstream.__all__).isdisjoint(opstream.events.__all__)
