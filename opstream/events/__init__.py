"""Subscribing to what happens to operations, with FastStream: docs/events.md."""

from opstream_schemas.events import OperationError

from .broker import EventsBroker
from .errors import EventsError, InvalidSubscription, UnexpectedShape
from .model import (
    ActionAttemptFailed,
    ActionCanceled,
    ActionCancelRequested,
    ActionFailed,
    ActionProgressed,
    ActionRequested,
    ActionStarted,
    ActionSucceeded,
    Event,
)
from .subscribe import subscribe
from .subscription import Backoff

__all__ = [
    "ActionAttemptFailed",
    "ActionCancelRequested",
    "ActionCanceled",
    "ActionFailed",
    "ActionProgressed",
    "ActionRequested",
    "ActionStarted",
    "ActionSucceeded",
    "Backoff",
    "Event",
    "EventsBroker",
    "EventsError",
    "InvalidSubscription",
    "OperationError",
    "UnexpectedShape",
    "subscribe",
]
