"""Subscriptions to the events of operations, with FastStream (docs/events.md).

Begin with `subscribe`, which turns a function into an `EventSubscriber`; `EventsBroker` connects and starts it. `model`
has the event classes that handlers get, `subscription` the checked arguments, `settlement` the end of a delivery.

Subscribers use the journal's connection and pull consumer. No service imports this package, and it knows no service.
"""

from opstream_schemas.events import OperationError
from opstream_schemas.urls import BrokerCredentials

from .broker import EventsBroker
from .errors import EventsError, InvalidSubscription, UnexpectedShape
from .model import (
    ActionAttached,
    ActionAttemptFailed,
    ActionCanceled,
    ActionCancelRequested,
    ActionCleaningUp,
    ActionFailed,
    ActionProgressed,
    ActionRequested,
    ActionSignaled,
    ActionStarted,
    ActionStepFailed,
    ActionStepStarted,
    ActionStepSucceeded,
    ActionSucceeded,
    ActionWaiting,
    Event,
)
from .subscribe import subscribe
from .subscription import Backoff

__all__ = [
    "ActionAttached",
    "ActionAttemptFailed",
    "ActionCancelRequested",
    "ActionCanceled",
    "ActionCleaningUp",
    "ActionFailed",
    "ActionProgressed",
    "ActionRequested",
    "ActionSignaled",
    "ActionStarted",
    "ActionStepFailed",
    "ActionStepStarted",
    "ActionStepSucceeded",
    "ActionSucceeded",
    "ActionWaiting",
    "Backoff",
    "BrokerCredentials",
    "Event",
    "EventsBroker",
    "EventsError",
    "InvalidSubscription",
    "OperationError",
    "UnexpectedShape",
    "subscribe",
]
