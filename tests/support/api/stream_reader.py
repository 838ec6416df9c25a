"""A reader of an operation's event stream that reconnects as a browser's EventSource does, and records what happened.

reader = Reader(http, [first_url, second_url], operation_id)
await reader.follow()                      # until the terminal event, over any number of connections
assert reader.positions == [1, 2, 3]
assert reader.ends == ["broken", "clean"]  # of its connections
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx

from tests.support.api.event_stream import ShownEvent
from tests.support.system.invariants import TERMINAL_EVENTS

CLEAN: Final = "clean"
BROKEN: Final = "broken"
_AGAIN: Final = 0.05


class Reader:
    """Reads one operation's events.

    Args:
        http: a client without a read timeout.
        apis: base URLs for the first connection, the second and so on; the last one for all later connections.
        operation_id: of the operation.
    """

    def __init__(self, http: httpx.AsyncClient, apis: Sequence[str], operation_id: str) -> None:
        self.operation_id = operation_id
        self.events: list[ShownEvent] = []
        self.comments: list[str] = []
        self.ends: list[str] = []
        """How each connection ended: `clean`, `broken`, or the status of a response that was no stream."""
        self.torn = 0
        """Connections that broke within an event."""
        self.is_connected = False
        self._http = http
        self._apis = apis

    @property
    def positions(self) -> list[int]:
        """The positions of all events, as they came."""
        return [event.id for event in self.events]

    @property
    def is_over(self) -> bool:
        """True once it has the terminal event."""
        return bool(self.events) and self.events[-1].name in TERMINAL_EVENTS

    async def follow(self) -> None:
        """Read to the terminal event; after a break, reconnect with the position of the last whole event."""
        while not self.is_over:
            url = self._apis[min(len(self.ends), len(self._apis) - 1)]
            headers = {"Accept": "text/event-stream"}
            if self.events:
                headers["Last-Event-ID"] = str(self.events[-1].id)
            try:
                await self._read(f"{url}/status/{self.operation_id}/events", headers)
            except httpx.ConnectError:
                await asyncio.sleep(_AGAIN)
            except httpx.TransportError:
                self.ends.append(BROKEN)
            finally:
                self.is_connected = False

    async def _read(self, url: str, headers: dict[str, str]) -> None:
        async with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                self.ends.append(str(response.status_code))
                await asyncio.sleep(int(response.headers.get("Retry-After", 0)))
                return
            self.is_connected = True
            rest = b""
            try:
                async for chunk in response.aiter_bytes():
                    *blocks, rest = (rest + chunk).split(b"\n\n")
                    for block in blocks:
                        self._parse_block(block)
            finally:
                self.torn += rest.startswith(b"id: ")
        self.ends.append(CLEAN)

    def _parse_block(self, block: bytes) -> None:
        fields: dict[bytes, list[bytes]] = {}
        for line in block.split(b"\n"):
            name, _, value = line.partition(b": ")
            fields.setdefault(name, []).append(value)
        self.comments += [comment.decode() for comment in fields.get(b"", [])]
        if b"data" in fields:
            self.events.append(
                ShownEvent(int(fields[b"id"][0]), fields[b"event"][0].decode(), b"\n".join(fields[b"data"]))
            )
