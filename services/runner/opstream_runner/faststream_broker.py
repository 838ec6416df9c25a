"""A FastStream broker that shares the journal's connection.

With endless reconnects FastStream's own `connect` never gives up, and it logs each refused try. Its own `stop` raises
while the broker is unreachable, and waits 10 s for a broker that does not respond. `Connection` handles both.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from faststream.nats import NatsBroker

from opstream_journal import Connection


class SharedConnectionBroker(NatsBroker):
    """A FastStream broker on a connection that it neither opens nor closes.

    Args:
        connection: the journal's connection.
        options: FastStream's options, except those of the connection.
    """

    def __init__(self, connection: Connection, **options: Any) -> None:  # noqa: ANN401 - FastStream's own
        super().__init__(logger=None, **options)
        self._shared = connection

    async def _connect(self) -> Any:  # noqa: ANN401 - nats-py's client, which only the journal imports
        self.config.connect(self._shared.nc)
        return self._shared.nc

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Stop the subscribers, but leave the connection open."""
        if self._shared.is_connected:
            # Without the broker there is nothing to unsubscribe from.
            await super(NatsBroker, self).stop(exc_type, exc_val, exc_tb)
        self._connection = None
        self.config.disconnect()
