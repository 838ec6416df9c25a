"""A connection to the broker in memory: all that a runner sends, answered in this process.

It answers as a broker does, message for message, so that journal, dispatcher and attempt are those of production.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from opstream_journal import Connection
from opstream_journal.jetstream.inbox import AnswerCheck, RequestInbox
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_journal.wire.sender import Sender
from opstream_schemas import subjects

from .memory_broker import Delivery, MemoryBroker

MAX_PAYLOAD: Final = 8 * 1024 * 1024
_ACKS: Final = f"$JS.ACK.{subjects.OPERATIONS_STREAM}."
_READ: Final = f"$JS.API.STREAM.MSG.GET.{subjects.OPERATIONS_STREAM}"
_READ_MANY: Final = f"$JS.API.DIRECT.GET.{subjects.OPERATIONS_STREAM}"
_PURGE_TIMERS: Final = f"$JS.API.STREAM.PURGE.{subjects.TIMERS_STREAM}"
_SEQUENCE_TOKEN: Final = 5

Publish = Callable[[str, bytes, Mapping[str, str]], Any]
"""Stores a message; a coroutine function, which may never return: its process is dead then."""


class MemoryConnection(Connection):
    """A connection that is always up.

    Args:
        broker: the streams.
        publish: stores what is published, and returns the answer.
    """

    def __init__(self, broker: MemoryBroker, publish: Publish) -> None:
        super().__init__("opstream.testing", on_lost=_never)
        self._client = _MemoryClient()
        self._broker = broker
        self._receivers: dict[str, Callable[[ReceivedMessage], None]] = {}
        self._memory_inbox = _MemoryInbox(self, broker, publish)
        self._memory_sender = _MemorySender(self, broker)

    @property
    def nc(self) -> Client:
        """The little of a client that is asked for."""
        return cast("Client", self._client)

    @property
    def sender(self) -> Sender:
        """Publishes to the broker in memory."""
        return self._memory_sender

    @property
    def inbox(self) -> RequestInbox:
        """Asks the broker in memory."""
        return self._memory_inbox

    @property
    def is_connected(self) -> bool:
        """Return True."""
        return True

    async def subscribe(self, subject: str, receive: Callable[[ReceivedMessage], None]) -> Subscription:
        """Hand answers on a subject, which ends in `*`, to `receive`."""
        self._receivers[subject.removesuffix("*")] = receive
        return cast("Subscription", None)  # nobody unsubscribes

    def deliver(self, reply: str, payload: bytes, headers: dict[str, str]) -> None:
        """Hand an answer to who has subscribed to it."""
        receive = next(one for prefix, one in self._receivers.items() if reply.startswith(prefix))
        asyncio.get_running_loop().call_soon(receive, self.message(reply, payload, headers))

    def message(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> ReceivedMessage:
        """Make a message that is received."""
        message = ReceivedMessage(self.nc, 0, subject.encode(), b"", payload, None)
        message.headers = headers
        return message

    def delivered(self, delivery: Delivery) -> ReceivedMessage:
        """Make the message of a delivery."""
        stored = self._broker.messages[delivery.sequence - 1]
        nanoseconds = int(self._broker.clock.now().timestamp() * 1e9)
        reply = f"{_ACKS}runner.{delivery.count}.{delivery.sequence}.{delivery.sequence}.{nanoseconds}.0"
        return ReceivedMessage(self.nc, 0, stored.subject.encode(), reply.encode(), stored.data, None)


class _MemoryClient:
    """What is asked of nats-py's client."""

    max_payload = MAX_PAYLOAD
    pending_data_size = 0
    is_closed = False

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new_inbox(self) -> str:
        return f"_INBOX.{next(self._numbers)}"


class _MemoryInbox(RequestInbox):
    def __init__(self, connection: MemoryConnection, broker: MemoryBroker, publish: Publish) -> None:
        self._connection = connection
        self._broker = broker
        self._publish = publish

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, _seconds: float, _is_answer: AnswerCheck
    ) -> ReceivedMessage:
        if subject.startswith(_ACKS):
            self._connection.sender.send(subject, payload)
            answer = b""
        elif subject == _READ:
            answer = self._broker.read(msgspec.json.decode(payload))
        elif subject.startswith(f"{_READ_MANY}."):
            return self._read_last(subject.removeprefix(f"{_READ_MANY}."))
        elif subject == _PURGE_TIMERS:
            answer = self._broker.purge_timers(msgspec.json.decode(payload)["filter"])
        else:
            answer = await self._publish(subject, payload, headers or {})
        return self._connection.message(subject, answer)

    def _read_last(self, subject: str) -> ReceivedMessage:
        found = self._broker.read_batch({"multi_last": [subject]})
        if not found:
            return self._connection.message(subject, b"", {"Status": "404"})
        return self._connection.message(subject, found[0].data, {"Nats-Sequence": str(found[0].seq)})


class _MemorySender(Sender):
    def __init__(self, connection: MemoryConnection, broker: MemoryBroker) -> None:
        self._connection = connection
        self._broker = broker

    def send(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - what comes here has none
    ) -> None:
        if subject.startswith(_ACKS):
            self._settle(int(subject.split(".")[_SEQUENCE_TOKEN]), data)
        elif subject == _READ_MANY:
            for one in self._broker.read_batch(msgspec.json.decode(data)):
                self._connection.deliver(reply, one.data, {"Nats-Subject": one.subject, "Nats-Sequence": str(one.seq)})
            self._connection.deliver(reply, b"", {"Status": "204"})
        else:
            raise NotImplementedError(f"the broker in memory has no {subject}")

    def _settle(self, sequence: int, word: bytes) -> None:
        if word.startswith(b"+ACK"):
            self._broker.acknowledge(sequence)
        elif word.startswith(b"-NAK"):
            delay = msgspec.json.decode(word[4:])["delay"] if len(word) > len(b"-NAK") else 0
            self._broker.release(sequence, delay / 1e9)
        else:
            self._broker.extend(sequence)


def _never(reason: str) -> None:
    raise AssertionError(f"the broker in memory is always there: {reason}")
