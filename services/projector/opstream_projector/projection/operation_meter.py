"""Counts how operations end and how long they take, as the projector sees their events.

The projectors share one consumer, so each event is counted by one of them. One whose projector dies before it has
acknowledged it may be counted again, by the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from opstream_journal.metrics.action_labels import OTHER, ActionLabels
from opstream_journal.metrics.instruments import LONG_SECONDS, Count, Counts, Histogram, Histograms, Instrument
from opstream_schemas.events import Canceled, EventData, Failed, RecordedEvent, Started, Succeeded
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation

_OUTCOMES: Final[tuple[type[EventData], ...]] = (Succeeded, Failed, Canceled)
_COUNTED: Final = frozenset({Started, *_OUTCOMES})


class _Series(NamedTuple):
    """Those of one action."""

    outcomes: dict[type[EventData], Count]
    queue_seconds: Histogram
    operation_seconds: Histogram


class OperationMeter:
    """The meter of one projector.

    Args:
        labels: of actions.
        learn: called with the action of an operation before the first time that its events count.
    """

    def __init__(self, labels: ActionLabels, learn: Callable[[Kind], Awaitable[None]] | None = None) -> None:
        self._labels = labels
        self._learn = learn
        self._series: dict[tuple[str, str], _Series] = {}
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

    async def prepare(self, operation: Operation) -> None:
        """Learn of an operation's action, if it is not known."""
        if self._learn is not None and (operation.resource, operation.action) not in self._series:
            await self._learn(operation.kind)

    def count(self, operation: Operation, events: Iterable[RecordedEvent]) -> None:
        """Count events that are in the view now.

        Args:
            operation: a state of their operation.
            events: each once.
        """
        series = None
        for event in events:
            data = event.data
            if data is None or type(data) not in _COUNTED:
                continue
            series = series or self._series_of(operation)
            if not isinstance(data, Started):
                series.outcomes[type(data)].value += 1
                series.operation_seconds.observe(_seconds_since_due(operation, event))
            elif data.attempt == 1:
                series.queue_seconds.observe(_seconds_since_due(operation, event))

    def _series_of(self, operation: Operation) -> _Series:
        key = (operation.resource, operation.action)
        series = self._series.get(key)
        if series is not None:
            return series
        label = self._labels.label(operation.kind)
        series = _Series(
            {kind: self._outcomes.of(label, kind.name) for kind in _OUTCOMES},
            self._queue_seconds.of(label),
            self._operation_seconds.of(label),
        )
        if label != OTHER:  # the catalog may have it later
            self._series[key] = series
        return series


def _seconds_since_due(operation: Operation, event: RecordedEvent) -> float:
    """The two times may be of two machines, whose clocks differ a little."""
    return max(0.0, (event.time - operation.due_at).total_seconds())
