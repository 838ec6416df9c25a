"""Answers requests to make a failed delivery again: those of the API, in the name of an administrator.

The API may not write to the queue of deliveries itself: a login that can, can empty it (docs/broker-access.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from opstream_journal import Connection, JournalError
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.webhook_delivery import (
    RedeliveryAnswer,
    RedeliveryOutcome,
    RedeliveryRequest,
    decode_redelivery_request,
    encode_record,
)

logger = logging.getLogger(__name__)


class RedeliveryDesk:
    """The requests that one process answers. Each is answered by one of the processes that run.

    Args:
        connection: the connection, which is up.
        deliveries: the queue.
        now: returns the time with a time zone.
    """

    def __init__(self, connection: Connection, deliveries: DeliveryStore, *, now: Callable[[], datetime]) -> None:
        self._connection = connection
        self._deliveries = deliveries
        self._now = now
        self.is_ready = True

    async def run(self) -> None:
        """Answer until cancelled."""
        subscription = await self._connection.nc.subscribe(
            subjects.REDELIVER_SUBJECT, queue=subjects.WEBHOOKS_CONSUMER, cb=self._on_request
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if self._connection.is_connected:
                await subscription.unsubscribe()

    async def _on_request(self, message: Msg) -> None:
        answer = await self._answer(message.data)
        if not message.reply:
            return
        try:
            await message.respond(encode_record(answer))
        except NatsError as error:
            logger.warning("who asked for a delivery did not get the answer %s: %s", answer.outcome, error)

    async def _answer(self, payload: bytes) -> RedeliveryAnswer:
        try:
            return await self._send_again(decode_redelivery_request(payload))
        except InvalidEvent as error:
            return RedeliveryAnswer(outcome=RedeliveryOutcome.EXPIRED, detail=str(error))
        except JournalError as error:
            return RedeliveryAnswer(outcome=RedeliveryOutcome.UNAVAILABLE, detail=str(error))

    async def _send_again(self, request: RedeliveryRequest) -> RedeliveryAnswer:
        attempt = await self._deliveries.last_failure(request.operation_id, request.endpoint)
        if attempt is None:
            return RedeliveryAnswer(outcome=RedeliveryOutcome.NOT_FAILED)
        await self._deliveries.send_again(attempt, self._now())
        logger.info("%s is sent to %s again: an administrator asked for it", request.operation_id, request.endpoint)
        return RedeliveryAnswer(outcome=RedeliveryOutcome.SENT)
