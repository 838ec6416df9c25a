"""Decodes a batch of delivered messages and groups the events by operation."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, NamedTuple

from opstream_journal import DeliveredMessage
from opstream_journal.outage_log import BoundedLog
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import RecordedEvent, decode_event

logger = logging.getLogger(__name__)

_TIMER_PREFIXES: Final = tuple(
    wildcard.removesuffix(">") for wildcard in (subjects.WAKE_DESTINATION, subjects.DUE_DESTINATION)
)
_MAX_LOGGED_TYPES: Final = 100
"""Unknown event types that are remembered as logged. Without a limit, a flood of invented types would fill memory."""


class DeliveredEvent(NamedTuple):
    """An event and the message that carried it."""

    message: DeliveredMessage
    event: RecordedEvent


EventGroups = dict[str, list[DeliveredEvent]]
"""Events by operation id, each list in stream order."""


class EventBatch(NamedTuple):
    """A decoded batch."""

    groups: EventGroups
    others: list[DeliveredMessage]
    """Fired timers and messages that are no events: they only need an acknowledgement."""


class BatchDecoder:
    """Decodes batches; logs each unknown event type once."""

    def __init__(self) -> None:
        self._unknown: set[str] = set()
        self._foreign = BoundedLog(logger, "messages among the events that are none")

    def decode(self, messages: Iterable[DeliveredMessage]) -> EventBatch:
        """Decode messages, in any order. What is neither an event nor a timer is logged as an error."""
        groups: EventGroups = {}
        others = []
        for message in messages:
            if message.subject.startswith(_TIMER_PREFIXES):
                others.append(message)
                continue
            try:
                operation_id = subjects.parse_event_subject(message.subject).operation_id
                event = decode_event(message.data, message.sequence, message.subject)
            except (InvalidName, InvalidEvent) as error:
                self._foreign.log(
                    logging.ERROR, "sequence %s (%s) is not an event: %s", message.sequence, message.subject, error
                )
                others.append(message)
                continue
            if event.operation_id != operation_id:
                self._foreign.log(
                    logging.ERROR,
                    "operation %s: the event at sequence %s lies under %s, skipping it",
                    event.operation_id,
                    message.sequence,
                    message.subject,
                )
                others.append(message)
                continue
            if event.data is None:
                self._log_unknown(event)
            groups.setdefault(operation_id, []).append(DeliveredEvent(message, event))
        for group in groups.values():
            group.sort(key=_sequence)
        return EventBatch(groups, others)

    def _log_unknown(self, event: RecordedEvent) -> None:
        if event.type in self._unknown or len(self._unknown) >= _MAX_LOGGED_TYPES:
            return
        self._unknown.add(event.type)
        logger.warning(
            "events of type %s are unknown to this version and skipped; the first: operation %s, sequence %s",
            event.type,
            event.operation_id,
            event.sequence,
        )


def _sequence(delivered: DeliveredEvent) -> int:
    return delivered.event.sequence
