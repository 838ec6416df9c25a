"""Counts how operations end and how long they take, as the projector sees their events.

The projectors share one consumer, so each event is counted by one of them. One whose projector dies before it has
acknowledged it may be counted again, by the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opstream_journal.metrics.action_labels import ActionLabels
from opstream_journal.metrics.instruments import LONG_SECONDS, Counts, Histograms, Instrument
from opstream_schemas.events import Canceled, Failed, RecordedEvent, Started, Succeeded
from opstream_schemas.operation.state import Operation

_OUTCOMES: Final = (Succeeded, Failed, Canceled)


class OperationMeter:
    """The meter of one projector.

    Args:
        labels: of actions.
    """

    def __init__(self, labels: ActionLabels) -> None:
        self._labels = labels
        self._outcomes = Counts(
            "opstream_operations",
            "Operations that have ended, by action and outcome: succeeded, failed or canceled. Sum over projectors.",
            *("action", "outcome"),
        )
        self._queue_seconds = Histograms(
            "opstream_queue_seconds",
            "From the request of an operation to the begin of its first attempt. Sum over projectors.",
            "action",
            bounds=LONG_SECONDS,
        )
        self._operation_seconds = Histograms(
            "opstream_operation_seconds",
            "From the request of an operation to its end, whatever that is. Sum over projectors.",
            "action",
            bounds=LONG_SECONDS,
        )

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page shows."""
        return (self._outcomes, self._queue_seconds, self._operation_seconds)

    def count(self, operation: Operation, events: Iterable[RecordedEvent]) -> None:
        """Count events that are in the view now.

        Args:
            operation: a state of their operation.
            events: each once.
        """
        for event in events:
            data = event.data
            if isinstance(data, _OUTCOMES):
                label = self._labels.label(operation.kind)
                self._outcomes.of(label, data.name).value += 1
                self._operation_seconds.of(label).observe(_seconds_since_request(operation, event))
            elif isinstance(data, Started) and data.attempt == 1:
                self._queue_seconds.of(self._labels.label(operation.kind)).observe(
                    _seconds_since_request(operation, event)
                )


def _seconds_since_request(operation: Operation, event: RecordedEvent) -> float:
    """The two times may be of two machines, whose clocks differ a little."""
    return max(0.0, (event.time - operation.created_at).total_seconds())
