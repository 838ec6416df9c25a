"""How a handler waits for a file: an async one awaits it, a plain one waits within the call."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any


def awaitable_or_done(done: Future[None]) -> Any:  # noqa: ANN401 - None in a plain handler
    """Return what an async handler awaits; in a plain one wait here."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return done.result()
    return asyncio.wrap_future(done, loop=loop)
