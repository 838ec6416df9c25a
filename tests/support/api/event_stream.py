"""Reads Server-Sent Events from a plain connection.

async with following(api, operation_id) as events:
    assert (await anext(events)).name == "requested"
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import msgspec


class ShownEvent(msgspec.Struct, frozen=True):
    """One event of a stream."""

    id: int
    name: str
    data: bytes


async def shown(lines: AsyncIterator[str]) -> AsyncIterator[ShownEvent]:
    """The events in a stream's lines, without comments."""
    fields: dict[str, list[str]] = {}
    async for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields.setdefault(name, []).append(value)
        elif not line and "data" in fields:
            yield ShownEvent(int(fields["id"][0]), fields["event"][0], "\n".join(fields["data"]).encode())
            fields = {}
        elif not line:
            fields = {}


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, operation_id: str, last: int | None = None
) -> AsyncIterator[AsyncIterator[ShownEvent]]:
    """The events of an operation after a position, as they come."""
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
    async with client.stream("GET", f"/status/{operation_id}/events", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        async with aclosing(shown(answer.aiter_lines())) as events:  # type: ignore[type-var]
            yield events
