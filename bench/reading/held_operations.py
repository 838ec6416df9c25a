"""Operations that run until the benchmark releases them; their action is in `held_actions`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import msgspec

from bench.harness import http_client
from bench.reading.held_actions import Hold

_PATH: Final = "/bench/42:hold"
_CONNECTIONS: Final = 16
_POLL_PAUSE: Final = 0.05
_START_LIMIT: Final = 60.0


class HeldOperations:
    """A number of operations that run while the context is open.

    Args:
        port: the API's.
        count: of operations.
        spread: seconds over which they end after the release.
    """

    def __init__(self, port: int, count: int, spread: float = 0.0) -> None:
        self._port = port
        self._count = count
        self._spread = spread
        self._is_open = asyncio.Event()
        self._is_held = asyncio.Event()
        self.operation_ids: list[str] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hold, http_client.HOST, 0)
        gate = self._server.sockets[0].getsockname()[1]
        connections = [await http_client.HttpConnection.open(self._port) for _ in range(min(_CONNECTIONS, self._count))]
        left = iter(range(self._count))

        async def start(connection: http_client.HttpConnection) -> None:
            for number in left:
                body = msgspec.json.encode(Hold(gate=gate, after=self._spread * number / self._count))
                submitted = http_client.decode_monitor(
                    await connection.send(connection.post(_PATH, body), http_client.ACCEPTED)
                )
                self.operation_ids.append(submitted.id)
                while not await is_running(connection, submitted.id):  # noqa: ASYNC110 - HTTP has no event to wait for
                    await asyncio.sleep(_POLL_PAUSE)

        try:
            async with asyncio.timeout(_START_LIMIT), asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(start(connection))
                # An operation is Running a moment before its action connects, so wait for the first connection.
                group.create_task(self._is_held.wait())
        except TimeoutError:
            raise http_client.LoadFailed(f"{self._count} operations did not start in {_START_LIMIT:g} s") from None
        finally:
            for connection in connections:
                connection.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.close()

    def release(self) -> None:
        """Let all operations end."""
        self._is_open.set()

    async def _hold(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._is_held.set()
        await self._is_open.wait()
        writer.close()


async def is_running(connection: http_client.HttpConnection, operation_id: str) -> bool:
    """Poll an operation once; return True if it runs.

    Raises:
        LoadFailed: it has ended.
    """
    status = http_client.decode_monitor(await connection.send(connection.get(f"/status/{operation_id}"))).status
    if status not in {"NotStarted", "Running"}:
        raise http_client.LoadFailed(f"operation {operation_id} should be held, but is {status}")
    return status == "Running"
