"""Answers that take their time: held until something happens, or sent piece by piece. Called by `status_routes.py`.

Either ends at once when the client goes away, so that nothing is kept for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from opstream_api.errors import ApiError
from opstream_journal.jetstream.connection import end_task

logger = logging.getLogger(__name__)

T = TypeVar("T")

ABORT: Final = "opstream.abort"
"""Key in the ASGI scope: drops the connection and all that was written but not read (`server.Protocol`)."""
PATIENCE: Final = 30.0
"""Seconds that a client may take to read what fills its connection's buffers, before it is hung up on."""


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


class Streamed(ASGIResponse):
    """An answer that is sent piece by piece, each as fast as its client reads, and never faster than it is made.

    Args:
        pieces: of the body; closed at the end, however it comes. If it raises, the connection is dropped, so that no
            client takes what it got for the whole.
        media_type: of the body.
        headers: further ones.
    """

    _should_set_content_length = False

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(media_type=media_type, headers=dict(headers or {}))
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await unless_gone(receive, self._write(send, scope[ABORT]))  # type: ignore[typeddict-item]

    async def _write(self, send: Send, abort: Callable[[], None]) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            try:
                await self.start_response(send)
                async for piece in pieces:
                    async with asyncio.timeout(PATIENCE):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                async with asyncio.timeout(PATIENCE):  # it waits until the last piece is taken
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                logger.info("a client did not read for %g s and is hung up on", PATIENCE)
                abort()
            except ApiError as error:
                logger.info("an answer that had begun can't be ended: %s", error)
                abort()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
