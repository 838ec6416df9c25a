"""Reads of many messages with one request: batched direct get (NATS ADR-31)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from opstream_journal.errors import BrokerRefused, JournalUnavailable
from opstream_journal.wire.received_message import ReceivedMessage

from .connection import Connection
from .rpc import CALL_TIMEOUT, StoredMessage, expected_version_in, wait_until_sendable

_MAX_BYTES: Final = 4 * 1024 * 1024
_END_OF_BATCH: Final = "204"
_NO_MESSAGES: Final = "404"
_NO_RESPONDERS: Final = "503"


def _same(subject: str) -> str:
    return subject


class BatchReader:
    """Reads any number of messages with one request. All requests share one inbox.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.nc.new_inbox()
        self._numbers = itertools.count()
        self._pending: dict[str, tuple[list[StoredMessage], asyncio.Future[None]]] = {}
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Subscribe to the inbox."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._receive)
        self._connection.on_disconnect(self._fail_all)

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        if self._subscription is None:
            return
        self._connection.remove_disconnect_callback(self._fail_all)
        if not self._connection.nc.is_closed:
            await self._subscription.unsubscribe()
        self._subscription = None

    async def read(
        self,
        stream: str,
        request: Mapping[str, Any],
        *,
        timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - one number for two waits
    ) -> list[StoredMessage]:
        """Return the messages that a direct get request asks for, in stream order.

        Any replica may answer, so on a cluster the messages may be out of date.

        Raises:
            JournalUnavailable: no replica answered, or the answer did not end in time.
            BrokerRefused: the stream refused the request.
        """
        timeout -= await wait_until_sendable(self._connection, timeout)
        key = str(next(self._numbers))
        found: list[StoredMessage] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[key] = (found, done)
        try:
            self._connection.sender.send(
                f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), reply=f"{self._inbox}.{key}"
            )
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError as error:
            raise JournalUnavailable(f"reading {stream} took over {timeout:g} s", maybe_stored=False) from error
        except (nats.errors.Error, OSError) as error:
            raise JournalUnavailable(
                f"the broker connection failed: {str(error) or type(error).__name__}", maybe_stored=False
            ) from error
        finally:
            del self._pending[key]
        return found

    async def read_last(
        self,
        stream: str,
        filters: Sequence[str],
        *,
        batch: int,
        timeout: float,  # noqa: ASYNC109 - handed on
        filter_of: Callable[[str], str] = _same,
    ) -> list[StoredMessage]:
        """Return the last message of each subject that one of the filters matches, with few requests.

        The broker cuts an answer by its bytes, and then the filters without a message are asked for again. So for a
        filter that matches several subjects some of their messages may be missing.

        Args:
            stream: the stream.
            filters: subjects or subject filters that don't overlap.
            batch: filters in one request; the broker refuses to answer with more than 1,024 messages.
            timeout: seconds for each request.
            filter_of: returns the filter that matches a subject; only needed for filters that are no subjects.

        Raises:
            JournalUnavailable: no replica answered, or an answer did not end in time.
            BrokerRefused: the stream refused the request.
        """
        found: list[StoredMessage] = []
        for start in range(0, len(filters), batch):
            missing = dict.fromkeys(filters[start : start + batch])
            while missing:
                request = {"multi_last": list(missing), "max_bytes": _MAX_BYTES}
                page = await self.read(stream, request, timeout=timeout)
                before = len(missing)
                for message in page:
                    missing.pop(filter_of(message.subject), None)
                found += page
                if len(missing) == before:
                    break
        return found

    def _fail_all(self) -> None:
        for _, done in self._pending.values():
            if not done.done():
                done.set_exception(JournalUnavailable("the broker connection was lost", maybe_stored=False))

    def _receive(self, message: ReceivedMessage) -> None:
        entry = self._pending.get(message.subject.rpartition(".")[2])
        if entry is None:
            return
        found, done = entry
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None and "Nats-Sequence" not in headers:
            return  # of another subscriber
        if status is None:
            found.append(
                StoredMessage(
                    headers["Nats-Subject"],
                    int(headers["Nats-Sequence"]),
                    message.data,
                    time=headers.get("Nats-Time-Stamp", ""),
                    schedule=headers.get("Nats-Schedule", ""),
                    message_id=headers.get("Nats-Msg-Id", ""),
                    expected=expected_version_in(headers),
                )
            )
        elif not done.done():
            if status in {_END_OF_BATCH, _NO_MESSAGES}:
                done.set_result(None)
            elif status == _NO_RESPONDERS:
                unanswered = JournalUnavailable("no replica answers direct gets", maybe_stored=False)
                unanswered.__cause__ = nats.errors.NoRespondersError()  # as of all other requests
                done.set_exception(unanswered)
            else:
                done.set_exception(BrokerRefused(int(status), 0, headers.get("Description", "")))
