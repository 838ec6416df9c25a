"""Sorts a batch of messages by operation, and puts aside what is no event. Caller: `projector.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, NamedTuple

from opstream_journal import DeliveredMessage
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import RecordedEvent, decode_event

logger = logging.getLogger(__name__)

_TIMER_PREFIXES: Final = tuple(
    wildcard.removesuffix(">") for wildcard in (subjects.WAKE_DESTINATION, subjects.DUE_DESTINATION)
)
_MAX_LOGGED_TYPES: Final = 100
"""Foreign types that are told apart in the log; a flood of invented ones must not fill the memory."""


class DeliveredEvent(NamedTuple):
    """An event and the message that brought it."""

    message: DeliveredMessage
    event: RecordedEvent


EventGroups = dict[str, list[DeliveredEvent]]
"""By operation id, each in stream order."""


class BatchDecoder:
    """Remembers which unknown types it has told of."""

    def __init__(self) -> None:
        self._unknown: set[str] = set()

    def decode(self, batch: Iterable[DeliveredMessage]) -> tuple[EventGroups, list[DeliveredMessage]]:
        """The events by operation, and the messages that need nothing but an ack: wakes, and what is no event."""
        groups: EventGroups = {}
        others = []
        for message in batch:
            if message.subject.startswith(_TIMER_PREFIXES):
                others.append(message)
                continue
            try:
                operation_id = subjects.parse_event_subject(message.subject).operation_id
                event = decode_event(message.data, message.sequence)
            except (InvalidName, InvalidEvent) as error:
                logger.error("sequence %s (%s) is no event: %s", message.sequence, message.subject, error)  # noqa: TRY400 - no bug here
                others.append(message)
                continue
            if event.operation_id != operation_id:
                logger.error(
                    "operation %s: the event at sequence %s lies under %s, passing over it",
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
        return groups, others

    def _log_unknown(self, event: RecordedEvent) -> None:
        if event.type in self._unknown or len(self._unknown) >= _MAX_LOGGED_TYPES:
            return
        self._unknown.add(event.type)
        logger.warning(
            "events of type %s, unknown to this version, are passed over; the first: operation %s, sequence %s",
            event.type,
            event.operation_id,
            event.sequence,
        )


def _sequence(delivery: DeliveredEvent) -> int:
    return delivery.event.sequence
