"""A receiver of webhooks on loopback: it keeps the requests, and gives the responses that a test sets.

async with receiving() as receiver:
    receiver.answers = [answer(500), answer(204)]  # the last one from then on
    await eventually(lambda: receiver.received)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from standardwebhooks import Webhook

SECRET: Final = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET: Final = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A received request."""

    path: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def webhook_id(self) -> str:
        """The id that is equal in repetitions."""
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """Return the event; the official library verifies the signature."""
        event: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return event


def answer(status: int, *headers: str, body: bytes = b"") -> Answer:
    """A response with this status, these header lines and this body."""

    async def write(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Any", *headers, f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return write


async def never(writer: asyncio.StreamWriter) -> None:
    """Accept the request and never respond."""
    await asyncio.Event().wait()


class WebhookReceiver:
    """The server: its address, its responses and the requests that it received."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list[Received] = []
        self.answers: list[Answer] = [answer(204)]
        self.open = 0
        self.most_open = 0

    @property
    def host(self) -> str:
        """Host and port, as in a rule about hosts."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """A URL with a secret in its query."""
        return f"http://{self.host}/hook?token=abc"

    def of(self, operation_id: str) -> list[Received]:
        """The requests about an operation."""
        return [one for one in self.received if msgspec.json.decode(one.body)["subject"] == operation_id]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request, and close the connection."""
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(path=head[0].split()[1], headers=headers, body=body))
            respond = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await respond(writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # asyncio logs an error about a handler that ends as cancelled
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[WebhookReceiver]:
    """Run a receiver on a free port."""
    receiver = WebhookReceiver()
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await receiver.serve(reader, writer)
        finally:
            handlers.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
