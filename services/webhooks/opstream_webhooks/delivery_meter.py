"""What `/metrics` of the webhooks service shows: attempts to deliver, and what is due."""

from __future__ import annotations

from typing import Final

from opstream_journal import Connection
from opstream_journal.metrics.instruments import SHORT_SECONDS, Counts, Gauges, Histograms, Instrument, Readings
from opstream_journal.queues.consumer_backlogs import read_backlog
from opstream_journal.queues.message_ages import MessageAges
from opstream_schemas import subjects
from opstream_schemas.webhook_delivery import DeliveryAttempt, DeliveryOutcome

_MAX_SECONDS: Final = 30.0


class DeliveryMeter:
    """Counts the attempts of one process, and reads for its gauges what is due.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
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
        return [self._attempts, self._seconds]

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
        if record.webhook_id:  # a request was sent
            self._seconds.of().observe(record.duration)

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
