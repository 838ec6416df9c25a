"""FastStream on the journal's connection. Caller: `main.py`.

FastStream's own connect knows no end with endless reconnects, and writes a line for every refused try; its own stop
raises while the broker is away, and waits 10 s for one that does not answer. `Connection` does both with care.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from faststream.nats import NatsBroker

from opstream_journal import Connection


class SharedConnectionBroker(NatsBroker):
    """A broker whose connection somebody else opened, and closes.

    Args:
        link: the connection.
        options: FastStream's, connection options aside.
    """

    def __init__(self, link: Connection, **options: Any) -> None:  # noqa: ANN401 - FastStream's own
        super().__init__(logger=None, **options)
        self._link = link

    async def _connect(self) -> Any:  # noqa: ANN401 - nats-py's client, which only the journal imports
        self.config.connect(self._link.nc)
        return self._link.nc

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Stop the subscribers and let go of the connection."""
        if self._link.is_connected:
            # Otherwise there is nobody to unsubscribe from.
            await super(NatsBroker, self).stop(exc_type, exc_val, exc_tb)
        self._connection = None
        self.config.disconnect()
