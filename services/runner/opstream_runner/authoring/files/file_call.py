"""How an async handler waits for a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future


def future_of(begin: Callable[[], Future[None]]) -> asyncio.Future[None]:
    """Begin to move a file, and return what is awaited for it in the running event loop."""
    return asyncio.wrap_future(begin(), loop=asyncio.get_running_loop())
