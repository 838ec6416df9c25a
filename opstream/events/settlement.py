"""Settles one event: acknowledges it, has it redelivered after a delay, or parks it as a dead letter.

`DurableDelivery` settles an event that the durable consumer delivered, `DeadLetterRetry` a parked one that is tried
again. Both are a `Settlement`: only the first call of `ack`, `nak` or `park` counts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from opstream_journal import Connection, DeliveredMessage, JournalError
from opstream_journal.jetstream.rpc import get_last
from opstream_journal.stores import dead_letters
from opstream_journal.stores.dead_letters import DeadLetter
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import RecordedEvent, decode_event
from opstream_schemas.names import Kind
from opstream_schemas.text import one_line

logger = logging.getLogger(__name__)

_PARK_RETRY_DELAY: Final = 5.0
"""Seconds until an event that could not be parked is redelivered."""

BackoffDelay = Callable[[int], float]
"""The seconds until the next delivery, by the number of deliveries so far."""


class Settlement(Protocol):
    """Settles a delivered event. Only the first call of `ack`, `nak` or `park` counts."""

    @property
    def is_settled(self) -> bool:
        """True once one of them was called."""
        ...

    async def ack(self) -> None:
        """Acknowledge the event."""
        ...

    async def nak(self, delay: float | None = None) -> None:
        """Have the event redelivered after `delay` seconds; None means the subscription's backoff."""
        ...

    async def park(self, reason: str, detail: str = "") -> None:
        """Park the event as a dead letter, until an operator retries it."""
        ...

    async def in_progress(self) -> None:
        """Restart the time after which the broker would redeliver the event."""
        ...

    async def find_request(self) -> RecordedEvent | None:
        """The operation's `requested` event; None if it has expired."""
        ...


class DurableDelivery:
    """One delivery of the durable consumer.

    Args:
        connection: to the broker.
        durable: the subscriber's name.
        delivered: the message.
        ack_timeout: seconds to wait for the broker until an acknowledgement is given up.
        backoff_delay: of the subscription.
    """

    def __init__(
        self,
        connection: Connection,
        durable: str,
        delivered: DeliveredMessage,
        *,
        ack_timeout: float,
        backoff_delay: BackoffDelay,
    ) -> None:
        self._connection = connection
        self._durable = durable
        self._delivered = delivered
        self._ack_timeout = ack_timeout
        self._backoff_delay = backoff_delay
        self.is_settled = False

    @property
    def deliveries(self) -> int:
        """1 for the first."""
        return self._delivered.deliveries

    async def ack(self) -> None:
        """Acknowledge it; during an outage, once the broker is back."""
        await self._settle_once(self._delivered.ack)

    async def nak(self, delay: float | None = None) -> None:
        """Have it redelivered after `delay` seconds, by default after the subscription's backoff."""
        seconds = self._backoff_delay(self.deliveries) if delay is None else max(0.0, delay)
        await self._settle_once(lambda: self._delivered.nak(seconds))

    async def park(self, reason: str, detail: str = "") -> None:
        """Store it as a dead letter, then acknowledge it, so that it is never lost."""
        if self.is_settled:
            return
        message = self._delivered
        parked = DeadLetter(
            durable=self._durable,
            sequence=message.sequence,
            subject=message.subject,
            reason=reason,
            detail=detail,
            deliveries=message.deliveries,
            data=message.data,
            content_type=(message.message.headers or {}).get("Content-Type", ""),
        )
        try:
            await dead_letters.add(self._connection, parked)
        except JournalError as error:
            logger.error(  # noqa: TRY400 - the line holds the error
                "%s: message %s can't be parked, and will be redelivered: %s", self._durable, message.sequence, error
            )
            await self.nak(_PARK_RETRY_DELAY)
            return
        logger.error(
            "%s: message %s (%s) is parked after %s deliveries: %s: %s",
            self._durable,
            message.sequence,
            message.subject,
            message.deliveries,
            reason,
            one_line(detail),
        )
        await self.ack()

    async def in_progress(self) -> None:
        """Restart the time after which the broker would redeliver it."""
        if not self.is_settled and self._connection.is_connected:
            await self._delivered.in_progress()

    async def find_request(self) -> RecordedEvent | None:
        """The operation's `requested` event; None if it has expired."""
        return await find_request_event(self._connection, self._delivered.subject)

    async def _settle_once(self, send: Callable[[], Awaitable[None]]) -> None:
        if self.is_settled:
            return
        self.is_settled = True
        # The acknowledgement names the stream sequence, so it is valid after a reconnect and prevents a redelivery.
        await self._connection.wait_connected(self._ack_timeout)
        await send()


class DeadLetterRetry:
    """One try of a dead letter: it stays parked unless it is acknowledged.

    Args:
        connection: to the broker.
        parked: the dead letter.
    """

    def __init__(self, connection: Connection, parked: DeadLetter) -> None:
        self._connection = connection
        self._parked = parked
        self.is_settled = False
        self.outcome = "failed: it stays parked"
        """The response to the operator."""

    async def ack(self) -> None:
        """Remove the dead letter."""
        if not self.is_settled:
            self.is_settled = True
            await dead_letters.remove(self._connection, self._parked)
            self.outcome = "done"

    async def nak(self, delay: float | None = None) -> None:  # noqa: ARG002 - an operator decides when to try again
        """Keep the dead letter."""
        self.is_settled = True

    async def park(self, reason: str, detail: str = "") -> None:
        """Keep the dead letter."""
        if not self.is_settled:
            self.is_settled = True
            self.outcome = f"failed: it stays parked: {reason}: {one_line(detail)}"

    async def in_progress(self) -> None:
        """Do nothing: a dead letter has no deadline."""

    async def find_request(self) -> RecordedEvent | None:
        """The operation's `requested` event; None if it has expired."""
        return await find_request_event(self._connection, self._parked.subject)


async def find_request_event(connection: Connection, subject: str) -> RecordedEvent | None:
    """The `requested` event of the operation that a subject names; None if it has expired or can't be decoded.

    Raises:
        JournalUnavailable: no leader answered.
    """
    try:
        parsed = subjects.parse_event_subject(subject)
        request_subject = subjects.event_subject(
            parsed.operation_id, Kind(parsed.kind.resource, parsed.kind.action), "requested"
        )
        stored = await get_last(connection, subjects.OPERATIONS_STREAM, request_subject)
        return None if stored is None else decode_event(stored.data, stored.seq)
    except (InvalidEvent, InvalidName):
        return None
