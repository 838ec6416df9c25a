"""An event as a FastStream message, for FastStream's middlewares, filters and `Context()`."""

from __future__ import annotations

from faststream.message import StreamMessage
from faststream.nats import NatsMessage
from nats.aio.msg import Msg

from .model import Event


class RawEventMessage(Msg):
    """nats-py's message, with the decoded event."""

    def __init__(self, message: Msg, event: Event) -> None:
        super().__init__(
            _client=message._client,  # noqa: SLF001 - the same message, under another type
            subject=message.subject,
            reply=message.reply,
            data=message.data,
            headers=message.headers,
        )
        self.event = event


class EventMessage(NatsMessage):
    """FastStream's message; its acknowledgements settle the event."""

    raw_message: RawEventMessage

    async def ack(self) -> None:
        """Acknowledge the event."""
        await self.raw_message.event.ack()
        await StreamMessage.ack(self)

    async def ack_sync(self) -> None:
        """Acknowledge the event; unlike FastStream's, it does not wait for the broker."""
        await self.ack()

    async def nack(self, delay: float | None = None) -> None:
        """Have the event redelivered after `delay` seconds, by default after the subscription's backoff."""
        await self.raw_message.event.nak(delay)
        await StreamMessage.nack(self)

    async def reject(self) -> None:
        """Park the event for an operator."""
        await self.raw_message.event.park()
        await StreamMessage.reject(self)

    async def in_progress(self) -> None:
        """Restart the time after which the broker would redeliver the event."""
        await self.raw_message.event.in_progress()


async def parse_message(message: RawEventMessage) -> StreamMessage[Msg]:
    """Wrap the message in FastStream's type."""
    headers = message.headers or {}
    event = message.event
    return EventMessage(
        raw_message=message,
        body=message.data,
        headers=headers,
        content_type=headers.get("Content-Type"),
        message_id=event.id,
        correlation_id=event.operation_id,
    )


async def decode_message(message: StreamMessage[RawEventMessage]) -> Event:
    """Return the event for the handler."""
    return message.raw_message.event
