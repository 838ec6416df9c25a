"""What becomes of one event: acknowledged, given back with a delay, or parked. Caller: `subscriber.py`.

`Delivery` settles one that the durable consumer delivered, `DeadLetterRetry` one that was parked and is tried again.
The
first word counts; whoever says another one later changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from opstream_journal import Connection, DeliveredMessage, JournalError
from opstream_journal.jetstream.rpc import get_last
from opstream_journal.stores import dead_letters as parking
from opstream_journal.stores.dead_letters import DeadLetter
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import RecordedEvent, decode_event
from opstream_schemas.names import Kind
from opstream_schemas.text import one_line

logger = logging.getLogger(__name__)

_PARK_RETRY_DELAY: Final = 5.0
"""Seconds until an event comes again that could not be parked."""

BackoffDelay = Callable[[int], float]
"""Seconds until the next delivery, after so many."""


class DurableDelivery:
    """One delivery of the durable consumer.

    Args:
        link: the connection.
        durable: the subscriber.
        delivered: what the consumer delivered.
        patience: seconds to wait for the broker before an acknowledgement is given up.
        pause: of the subscription.
    """

    def __init__(
        self, link: Connection, durable: str, delivered: DeliveredMessage, *, patience: float, pause: BackoffDelay
    ) -> None:
        self._link = link
        self._durable = durable
        self._delivered = delivered
        self._patience = patience
        self._pause = pause
        self.is_settled = False

    @property
    def deliveries(self) -> int:
        """1 for the first."""
        return self._delivered.deliveries

    async def ack(self) -> None:
        """Done. If the broker is away, it is told when it is back."""
        await self._settle_once(self._delivered.ack)

    async def nak(self, delay: float | None = None) -> None:
        """Once more, after `delay` seconds, by default as the subscription's backoff says."""
        seconds = self._pause(self.deliveries) if delay is None else max(0.0, delay)
        await self._settle_once(lambda: self._delivered.nak(seconds))

    async def park(self, reason: str, detail: str = "") -> None:
        """No more, until an operator wants it. It is stored before it is acknowledged, so it is never nowhere."""
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
            await parking.add(self._link, parked)
        except JournalError as error:
            logger.error("%s: message %s can't be parked, and comes again: %s", self._durable, message.sequence, error)  # noqa: TRY400 - the line says it
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
        """Still at it."""
        if not self.is_settled and self._link.is_connected:
            await self._delivered.in_progress()

    async def find_request(self) -> RecordedEvent | None:
        """The event that began the operation."""
        return await find_request_event(self._link, self._delivered.subject)

    async def _settle_once(self, say: Callable[[], Awaitable[None]]) -> None:
        if self.is_settled:
            return
        self.is_settled = True
        # It goes by stream sequence, so it counts after a reconnect, too, and saves another delivery.
        await self._link.wait_connected(self._patience)
        await say()


class DeadLetterRetry:
    """One try of a parked event: it stays parked unless it is acknowledged.

    Args:
        link: the connection.
        parked: what was found.
    """

    def __init__(self, link: Connection, parked: DeadLetter) -> None:
        self._link = link
        self._parked = parked
        self.is_settled = False
        self.outcome = "failed: it stays parked"
        """For whoever wanted the try."""

    async def ack(self) -> None:
        """Done: it is parked no more."""
        if not self.is_settled:
            self.is_settled = True
            await parking.remove(self._link, self._parked)
            self.outcome = "done"

    async def nak(self, delay: float | None = None) -> None:  # noqa: ARG002 - it comes again when somebody wants it
        """It stays."""
        self.is_settled = True

    async def park(self, reason: str, detail: str = "") -> None:
        """It stays."""
        if not self.is_settled:
            self.is_settled = True
            self.outcome = f"failed: it stays parked: {reason}: {one_line(detail)}"

    async def in_progress(self) -> None:
        """Nobody waits for a sign."""

    async def find_request(self) -> RecordedEvent | None:
        """The event that began the operation."""
        return await find_request_event(self._link, self._parked.subject)


async def find_request_event(link: Connection, subject: str) -> RecordedEvent | None:
    """The event that began the operation of an event's subject, None if it has expired or is none.

    Raises:
        JournalUnavailable: no leader answered.
    """
    try:
        place = subjects.parse_event_subject(subject)
        wanted = subjects.event_subject(place.operation_id, Kind(place.kind.resource, place.kind.action), "requested")
        stored = await get_last(link, subjects.OPERATIONS_STREAM, wanted)
        return None if stored is None else decode_event(stored.data, stored.seq)
    except (InvalidEvent, InvalidName):
        return None
