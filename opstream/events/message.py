"""An event as FastStream's own message, for its middlewares, filters and `Context()`. Caller: `subscriber.py`."""

from __future__ import annotations

from faststream.message import StreamMessage
from faststream.nats import NatsMessage
from nats.aio.msg import Msg

from .model import Event


class RawEventMessage(Msg):
    """nats-py's message, with the event that it holds."""

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
    """FastStream's message; its acknowledgements are the event's."""

    raw_message: RawEventMessage

    async def ack(self) -> None:
        """Done."""
        await self.raw_message.event.ack()
        await StreamMessage.ack(self)

    async def ack_sync(self) -> None:
        """Done; that the broker knows it is not waited for."""
        await self.ack()

    async def nack(self, delay: float | None = None) -> None:
        """Once more, after `delay` seconds, or as the subscription's backoff says."""
        await self.raw_message.event.nak(delay)
        await StreamMessage.nack(self)

    async def reject(self) -> None:
        """Put it aside for an operator."""
        await self.raw_message.event.park()
        await StreamMessage.reject(self)

    async def in_progress(self) -> None:
        """Still at it."""
        await self.raw_message.event.in_progress()


async def parse_message(message: RawEventMessage) -> StreamMessage[Msg]:
    """FastStream's message of ours."""
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
    """What the handler gets."""
    return message.raw_message.event
