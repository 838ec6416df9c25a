"""Actions for the parts about reading: one that runs until it is told to end, one with a large input."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from bench.actions import Pong
from bookshelf.records import UploadStart
from opstream import ActionContext, action

_QUIET_LEASE: Final = 3600.0
"""Seconds. A runner looks at what it runs three times a lease, and these looks are not what is measured."""


class Hold(msgspec.Struct, forbid_unknown_fields=True):
    """Input of `hold`."""

    gate: int
    """TCP port of this machine that hangs up when it is time."""
    after: float
    """Seconds that the action goes on after that, so that many do not end in the same moment."""


@action("bench:hold", lease=_QUIET_LEASE)
async def hold(request: Hold, _context: ActionContext) -> Pong:
    """Run until told to end."""
    gate = _gates.get(request.gate)
    if gate is None:
        gate = _gates[request.gate] = asyncio.create_task(_opened(request.gate))
    await asyncio.shield(gate)
    await asyncio.sleep(request.after)
    return Pong(text="it was held, and is over")


@action("bench:files")
async def files(request: UploadStart, _context: ActionContext) -> Pong:
    """Take a list of files."""
    return Pong(text=f"{len(request.files)} files")


_gates: Final[dict[int, asyncio.Task[None]]] = {}


async def _opened(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read()
    finally:
        writer.close()
