"""The projector, in the test's event loop.

async with projecting(broker.url):
    ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from opstream_projector.main import serve
from opstream_projector.settings import Settings


@contextlib.asynccontextmanager
async def projecting(url: str, **settings: Any) -> AsyncIterator[None]:
    """A projector on the broker at `url`; `settings` are those of `Settings`."""
    stopping = asyncio.Event()
    task = asyncio.create_task(serve(Settings(servers=(url,), **settings), stopping))
    try:
        yield
    finally:
        stopping.set()
        await task
