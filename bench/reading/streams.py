"""Many readers of one operation's Server-Sent Events, and some clients that read nothing.

The benchmark appends the events itself: a runner would record at most one for each percent.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from datetime import UTC, datetime
from typing import Any, Final

import httptools
import msgspec
import uuid_utils

from bench.harness import http_client
from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import process_usage
from bench.reading.held_operations import HeldOperations
from opstream_journal import ExpectedVersion, Journal, connect
from opstream_schemas.events import Progressed
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import fold_for_reader, next_event
from opstream_schemas.operation.state import Operation

KIND: Final = Kind("bench", "hold")

_TIMEOUT: Final = 30.0
_SETTLE: Final = 1.5
_SAMPLE: Final = 0.05
"""Seconds between two reads of the memory."""
_END: Final = b"0\r\n\r\n"
_SMALL_BUFFER: Final = 4096
_FRAME: Final = re.compile(rb"id: ([0-9]+)\nevent: progressed\n")
_WARM_UP: Final = 20


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    pids: dict[str, int]
    nats_url: str
    readers: int
    idlers: int
    """Clients that request the events and then read nothing."""
    events: int
    pause: float
    """Seconds between two events; 0 for each as soon as the one before is stored."""
    text: int
    """Characters of each event's message."""


class StreamFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    readers: int
    idlers: int
    events: int
    size: float
    """Bytes of an event in the stream, on the average."""
    append: Latency
    """Until an event was stored."""
    late: Latency
    """From an event's time, which is set just before it is stored, to its last byte at a reader."""
    rate: float
    """Events a second, received by all readers together."""
    rss: dict[str, int]
    """Bytes of the API: `before`, with all readers `connected`, and the `peak` while events came."""
    cpu: dict[str, float]
    """Microseconds for each event and reader, by process; `load` is the load generator."""
    api_share: float
    """Of a core, while events came."""
    load_share: float


class _Reader(asyncio.Protocol):
    """Stores what comes and when; `received` parses it afterwards."""

    def __init__(self) -> None:
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts: list[tuple[float, bytes]] = []
        self._text = b""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parts.append((time.time(), data))
        if data.endswith(_END) and not self.is_over.done():
            self.is_over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over.done():
            self.is_over.set_exception(http_client.LoadFailed(f"the API ended a stream too early: {exc}"))

    def on_body(self, body: bytes) -> None:
        self._text += body

    def received(self) -> tuple[dict[int, float], int]:
        """When the last byte of each event came, by position; and the bytes of all events."""
        parser = httptools.HttpResponseParser(self)
        times: dict[int, float] = {}
        size = 0
        for at, data in self._parts:
            parser.feed_data(data)
            whole, _, rest = self._text.rpartition(b"\n\n")
            size += len(whole)
            self._text = rest
            for position in _FRAME.findall(whole):
                times[int(position)] = at
        return times, size


async def run(streams: Streams) -> StreamFigures:
    """Warm up, and run the task."""
    await _run(msgspec.structs.replace(streams, readers=min(streams.readers, _WARM_UP), idlers=0, events=_WARM_UP))
    return await _run(streams)


async def _run(streams: Streams) -> StreamFigures:
    api = streams.pids["api"]
    connection = await connect([streams.nats_url], "bench", connect_timeout=_TIMEOUT)
    try:
        journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        async with HeldOperations(streams.port, 1) as held:
            operation = fold_for_reader(None, await journal.events(held.operation_ids[0]))
            assert operation is not None
            await asyncio.sleep(_SETTLE)
            rss = {"before": process_usage(api).rss}
            idlers = [_idler(streams.port, operation.id) for _ in range(streams.idlers)]
            readers = [await _reader(streams.port, operation.id) for _ in range(streams.readers)]
            await asyncio.sleep(_SETTLE)
            rss["connected"] = process_usage(api).rss
            watching = asyncio.create_task(_peak_memory(api))
            before, load = {name: process_usage(pid).cpu for name, pid in streams.pids.items()}, time.process_time()
            appended = await _append_all(journal, operation, streams)
            held.release()
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.gather(*(reader.is_over for reader in readers))
            load = time.process_time() - load
            cpu = {name: process_usage(pid).cpu - before[name] for name, pid in streams.pids.items()} | {"load": load}
            watching.cancel()
            rss["peak"] = await watching
    finally:
        await connection.close()
    for reader in readers:
        reader.transport.close()
    for idler in idlers:
        idler.close()
    return _figures(streams, appended, readers, rss, cpu)


def _figures(
    streams: Streams,
    appended: dict[int, tuple[float, float]],
    readers: list[_Reader],
    rss: dict[str, int],
    cpu: dict[str, float],
) -> StreamFigures:
    late: list[float] = []
    last = 0.0
    size = 0
    for reader in readers:
        times, size = reader.received()
        if times.keys() != appended.keys():
            raise http_client.LoadFailed(f"a reader got {len(times)} of {len(appended)} events")
        late += [at - appended[position][0] for position, at in times.items()]
        last = max(last, *times.values())
    seconds = last - min(began for began, _ in appended.values())
    return StreamFigures(
        readers=streams.readers,
        idlers=streams.idlers,
        events=streams.events,
        size=size / streams.events,
        append=percentiles(stored - began for began, stored in appended.values()),
        late=percentiles(late),
        rate=len(late) / seconds,
        rss=rss,
        cpu={name: value * 1e6 / len(late) for name, value in cpu.items()},
        api_share=cpu["api"] / seconds,
        load_share=cpu["load"] / seconds,
    )


async def _append_all(journal: Journal, operation: Operation, streams: Streams) -> dict[int, tuple[float, float]]:
    """Append the events; return when each was made and stored, in seconds since the epoch, by position."""
    appended: dict[int, tuple[float, float]] = {}
    due = time.perf_counter()
    for number in range(streams.events):
        due += streams.pause
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        data = Progressed(percent=100.0 * number / streams.events, message="m" * streams.text)
        now = datetime.now(UTC)
        event = next_event(operation, data, id=str(uuid_utils.uuid7()), source="opstream/bench", time=now)
        stored = await journal.append(KIND, event, ExpectedVersion(operation.stream_sequence), budget=_TIMEOUT)
        appended[event.position] = now.timestamp(), time.time()
        following = fold_for_reader(operation, [stored])
        assert following is not None
        operation = following
    return appended


async def _peak_memory(pid: int) -> int:
    """The peak memory of a process until the task is canceled, in bytes."""
    peak = 0
    while True:
        peak = max(peak, process_usage(pid).rss)
        try:
            await asyncio.sleep(_SAMPLE)
        except asyncio.CancelledError:
            return max(peak, process_usage(pid).rss)


async def _reader(port: int, operation_id: str) -> _Reader:
    _, reader = await asyncio.get_running_loop().create_connection(_Reader, http_client.HOST, port)
    reader.transport.write(_request(port, operation_id))
    return reader


def _idler(port: int, operation_id: str) -> socket.socket:
    idler = socket.socket()
    idler.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    idler.connect((http_client.HOST, port))
    idler.sendall(_request(port, operation_id))
    return idler


def _request(port: int, operation_id: str) -> bytes:
    return b"GET /status/%s/events HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n\r\n" % (
        operation_id.encode(),
        http_client.HOST.encode(),
        port,
    )


if __name__ == "__main__":
    http_client.run_task(run, Streams)
