"""What `opstream.testing` raises."""

from __future__ import annotations


class RunRefused(ValueError):
    """A run can't begin, or not be continued as asked. The message says what to change."""


class FaultFound(AssertionError):
    """A run whose runner dies at some moment has another outcome than one whose runner lives; or a check fails.

    Args:
        message: at which moments, and what was different.
    """


class StartFailed(RuntimeError):
    """The opstream of a test did not start, or ended by itself. The message has its output."""
