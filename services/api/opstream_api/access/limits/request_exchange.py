"""The API processes tell each other, a few times a second, how many requests of which callers they have let pass.

These are core messages: one that is lost makes the limit of some callers wider for a moment, and nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from opstream_api.access.principal import Owner
from opstream_journal import Connection
from opstream_journal.jetstream.connection import end_task
from opstream_journal.outage_log import BoundedLog
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas import subjects

from .request_limit import RequestLimit

logger = logging.getLogger(__name__)

INTERVAL: Final = 0.25
"""Seconds between two messages of a process. It sends none if nothing has passed."""
MAX_MEMBERS: Final = 500
"""Callers in one message: with the longest names these are about half of a broker's default `max_payload`."""


class PassedRequests(msgspec.Struct, frozen=True):
    """A message: what one process has let pass."""

    process: str
    passed: list[tuple[str, str, int]]
    """Tenant, subject and count."""


_decode: Final = msgspec.json.Decoder(PassedRequests).decode


class RequestExchange:
    """Shares a limit with all other processes.

    Args:
        connection: the connection.
        limit: of this process.
    """

    def __init__(self, connection: Connection, limit: RequestLimit) -> None:
        self._connection = connection
        self._limit = limit
        self._process = secrets.token_hex(8)
        self._complaints = BoundedLog(logger, "messages about requests of callers that can't be read")
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen and to send."""
        self._subscription = await self._connection.subscribe(subjects.CALLER_REQUESTS, self._receive)
        self._task = asyncio.create_task(self._send_periodically(), name="request exchange")

    async def stop(self) -> None:
        """End both."""
        if self._task is not None:
            await end_task(self._task)
        if self._subscription is not None and not self._connection.nc.is_closed:
            await self._subscription.unsubscribe()

    async def _send_periodically(self) -> None:
        while True:
            await self._connection.sleep(INTERVAL)
            passed = self._limit.drain()
            if not passed:
                continue
            try:
                for data in encode_passed(self._process, passed):
                    self._connection.sender.send(subjects.CALLER_REQUESTS, data)
            except (nats.errors.Error, OSError) as error:
                # Not sent later: what passed before an outage must not count as if it had passed after it.
                logger.debug("what has passed is not shared: %s", error)

    def _receive(self, message: ReceivedMessage) -> None:
        try:
            found = _decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._complaints.log(logging.WARNING, "a message about requests of callers is ignored: %s", error)
            return
        if found.process != self._process:
            for tenant, subject, count in found.passed[:MAX_MEMBERS]:
                self._limit.add(Owner(tenant, subject), count)


def encode_passed(process: str, passed: Mapping[Owner, int]) -> Iterator[bytes]:
    """Encode what has passed as messages, each of at most `MAX_MEMBERS` callers."""
    members = iter([(*caller, count) for caller, count in passed.items()])
    while chunk := list(itertools.islice(members, MAX_MEMBERS)):
        yield msgspec.json.encode(PassedRequests(process, chunk))
