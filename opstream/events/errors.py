"""Errors of subscribing. What the broker refuses or lacks is the journal's (`opstream_journal.errors`)."""

from __future__ import annotations


class EventsError(Exception):
    """Base of every error in this package."""


class InvalidSubscription(EventsError, ValueError):
    """An argument of `subscribe` can't be right; the message says what to write instead."""


class UnexpectedShape(EventsError, ValueError):
    """A result or an input is not what the handler took it for. No retry helps, so the event is parked at once."""


class UnreadableEvent(EventsError):
    """A delivered message is no event that this version can hand to a handler.

    Attributes:
        reason: the word under which it is parked.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
