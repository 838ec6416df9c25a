"""The projector, in the test's event loop.

async with projecting(broker.url):
    ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from opstream.local.ports import is_ready
from opstream_projector.main import serve
from opstream_projector.settings import Settings
from tests.support.broker.server import free_port
from tests.support.system.wait import eventually


@contextlib.asynccontextmanager
async def projecting(url: str, **settings: Any) -> AsyncIterator[None]:
    """A projector on the broker at `url`, once it is ready; `settings` are those of `Settings`."""
    stopping, port = asyncio.Event(), free_port()
    task = asyncio.create_task(serve(Settings(servers=(url,), health_port=port, **settings), stopping))
    try:
        await eventually(lambda: is_ready("127.0.0.1", port), within=10)
        yield
    finally:
        stopping.set()
        await task
