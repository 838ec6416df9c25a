"""What `/metrics` of the webhooks service shows: attempts to deliver, and what is due."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from opstream_journal import Connection
from opstream_journal.metrics.instruments import SHORT_SECONDS, Counts, Gauges, Histograms, Instrument, Readings
from opstream_journal.queues.consumer_backlogs import read_backlog
from opstream_journal.queues.message_ages import MessageAges
from opstream_schemas import subjects
from opstream_schemas.webhook_delivery import CALLBACK_ENDPOINT, DeliveryAttempt, DeliveryOutcome

OTHER: Final = "other"
"""The label of all endpoints that are not configured."""
MAX_ENDPOINTS: Final = 1_000
"""Endpoints with series of their own, at most; the rest share those of `OTHER`."""

_MAX_SECONDS: Final = 30.0


class DeliveryMeter:
    """Counts the attempts of one process, and reads for its gauges what is due.

    Args:
        connection: the connection, which is up.
        endpoints: returns the names of the configured endpoints now.
    """

    def __init__(self, connection: Connection, endpoints: Callable[[], Container[str]] = tuple) -> None:
        self._connection = connection
        self._endpoints = endpoints
        self._last: dict[str, dict[DeliveryOutcome, float]] = {}
        """When the last attempt of each outcome ended, in Unix seconds, by the label of its endpoint."""
        self._messages = MessageAges(connection)
        self._due: tuple[int, float, int] | None = None
        """Deliveries that are due, the age of the first in seconds, and outcomes that are not turned into deliveries;
        None before the first read."""
        self._attempts = Counts(
            "opstream_webhook_attempts",
            "Attempts to deliver an outcome, by what became of them: delivered, retrying or gave-up. Sum over "
            "processes.",
            "outcome",
        )
        self._seconds = Histograms(
            "opstream_webhook_attempt_seconds",
            "From the begin of a request to a receiver until its answer, or until it was given up. Sum over processes.",
            bounds=(*SHORT_SECONDS, _MAX_SECONDS),
        )
        for outcome in DeliveryOutcome:
            self._attempts.of(str(outcome))

    @property
    def instruments(self) -> list[Instrument]:
        """What the page shows of this process."""
        return [
            self._attempts,
            self._seconds,
            Gauges(
                "opstream_webhook_last_attempt_timestamp_seconds",
                "When the last attempt to deliver to an endpoint ended with this outcome, in Unix seconds; 0 for none "
                "since this process began. Take the maximum over processes.",
                *("endpoint", "outcome"),
                read=lambda: [
                    ((label, str(outcome)), at) for label, ends in self._last.items() for outcome, at in ends.items()
                ],
            ),
        ]

    @property
    def gauges(self) -> list[Instrument]:
        """What `read` found last."""
        return [
            Gauges(
                "opstream_webhooks_due",
                "Deliveries that are due now. Each process shows all of them: take the maximum, never the sum.",
                read=lambda: self._shown(0),
            ),
            Gauges(
                "opstream_webhooks_oldest_due_seconds",
                "For how long the first of these deliveries has been due; 0 without one. Take the maximum.",
                read=lambda: self._shown(1),
            ),
            Gauges(
                "opstream_webhooks_lag_events",
                "Outcomes of operations that are not turned into deliveries yet. Take the maximum.",
                read=lambda: self._shown(2),
            ),
        ]

    def count(self, record: DeliveryAttempt) -> None:
        """Count an attempt that was recorded."""
        self._attempts.of(str(record.outcome)).value += 1
        label = self._label(record.endpoint)
        if label not in self._last:
            self._last[label] = dict.fromkeys(DeliveryOutcome, 0.0)
        self._last[label][record.outcome] = record.at.timestamp() + record.duration
        if record.webhook_id:  # a request was sent
            self._seconds.of().observe(record.duration)

    def _label(self, endpoint: str) -> str:
        """Return the endpoint's name if it is configured, or stands for callbacks; otherwise `OTHER`."""
        if endpoint in self._last:
            return endpoint
        is_known = endpoint == CALLBACK_ENDPOINT or endpoint in self._endpoints()
        return endpoint if is_known and len(self._last) < MAX_ENDPOINTS else OTHER

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._messages.start()

    async def read(self) -> None:
        """Read what is due. After an error the gauges show what they showed before.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        due = await read_backlog(self._connection, subjects.WEBHOOKS_STREAM, subjects.WEBHOOKS_DUE_CONSUMER)
        outcomes = await read_backlog(self._connection, subjects.OPERATIONS_STREAM, subjects.WEBHOOKS_CONSUMER)
        seconds = 0.0
        if due.open:
            seconds = await self._messages.age_of_first(
                subjects.WEBHOOKS_STREAM, subjects.WEBHOOKS_DUE_FILTER, due.first_open
            )
        self._due = due.open, seconds, outcomes.open

    def _shown(self, number: int) -> Readings:
        return [] if self._due is None else [((), self._due[number])]
