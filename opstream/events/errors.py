"""Errors of subscriptions and events. Errors of the broker are those of `opstream_journal.errors`."""

from __future__ import annotations


class EventsError(Exception):
    """Base of all errors of this package."""


class InvalidSubscription(EventsError, ValueError):
    """An argument of `subscribe` or `EventsBroker` is not valid; the message says what to write instead."""


class UnexpectedShape(EventsError, ValueError):
    """A result or an input has another type than the handler expects. No retry helps, so the event is parked."""


class UnreadableEvent(EventsError):
    """A delivered message is no event that this version can decode.

    Attributes:
        reason: a word that is stored with the dead letter.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
