"""A subscriber as an author would write it: a process that appends the id of each event that ended an operation to a
file, once the event has come.

    python subscriber.py RECEIVED nats://n1:4222,nats://n2:4222
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from faststream import FastStream

from opstream.events import ActionCanceled, ActionFailed, ActionSucceeded, EventsBroker, subscribe

DURABLE: Final = "witness"
RECEIVED: Final = "received"


async def receive(path: str, servers: str) -> None:
    """Receive events until SIGTERM."""
    broker = EventsBroker(servers)

    @subscribe(broker, "chaos:*", durable=DURABLE, start="all")
    async def keep(event: ActionSucceeded | ActionFailed | ActionCanceled) -> None:
        # One write in append mode, as a mark of an action.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, f"{event.id}\n".encode())
        finally:
            os.close(descriptor)

    await FastStream(broker).run()


if __name__ == "__main__":
    asyncio.run(receive(*sys.argv[1:]))
