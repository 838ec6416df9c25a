"""Actions for the parts about reading: one that runs until it is released, one with a large input."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from bench.harness.actions import Pong
from bookshelf.records import UploadStart
from opstream import ActionContext, action

_QUIET_LEASE: Final = 3600.0
"""Seconds. A runner checks each operation three times a lease; a long lease keeps these reads out of the figures."""


class Hold(msgspec.Struct, forbid_unknown_fields=True):
    """Input of `hold`."""

    gate: int
    """Loopback TCP port that closes the connection to release the action."""
    after: float
    """Seconds from the release until the action ends, so that many actions do not end at the same moment."""


@action("bench:hold", lease=_QUIET_LEASE)
async def hold(request: Hold, _context: ActionContext) -> Pong:
    """Run until released."""
    gate = _gates.get(request.gate)
    if gate is None:
        gate = _gates[request.gate] = asyncio.create_task(_opened(request.gate))
    await asyncio.shield(gate)
    await asyncio.sleep(request.after)
    return Pong(text="it was held, and is over")


@action("bench:files")
async def files(request: UploadStart, _context: ActionContext) -> Pong:
    """Return the number of files."""
    return Pong(text=f"{len(request.files)} files")


_gates: Final[dict[int, asyncio.Task[None]]] = {}


async def _opened(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read()
    finally:
        writer.close()
