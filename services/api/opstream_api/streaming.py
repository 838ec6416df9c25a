"""Answers that take their time: held until something happens, or sent piece by piece. Called by `status_routes.py`.

Either ends at once when the client goes away, so that nothing is kept for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, TypeVar

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from opstream_journal.link import end_task

logger = logging.getLogger(__name__)

T = TypeVar("T")

ABORT: Final = "opstream.abort"
"""Key in the ASGI scope: drops the connection and all that was written but not read (`server.Protocol`)."""
PATIENCE: Final = 30.0
"""Seconds that a client may take to read what fills its connection's buffers, before it is hung up on."""
EVENT_STREAM: Final = "text/event-stream"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns or raises; None if the client went away before, and then `work` is cancelled."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await end_task(leaving)
        await end_task(working)


class EventStream(ASGIResponse):
    """Server-Sent Events.

    Args:
        chunks: whole events; closed at the end, however it comes.
    """

    _should_set_content_length = False

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        headers = {
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx would hold events back to fill its buffers
        }
        super().__init__(media_type=EVENT_STREAM, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await unless_gone(receive, self._write(send, scope[ABORT]))  # type: ignore[typeddict-item]

    async def _write(self, send: Send, abort: Callable[[], None]) -> None:
        async with contextlib.aclosing(self._chunks) as chunks:
            try:
                await self.start_response(send)
                async for chunk in chunks:
                    async with asyncio.timeout(PATIENCE):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                logger.info("a reader of events did not read for %g s and is hung up on", PATIENCE)
                abort()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
