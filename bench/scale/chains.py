"""The client of the part `floors`: guarded appends as opstream makes them, over a raw socket, in a process of its own.

A chain stores one operation after the other: three events, each with its message id and guarded by the sequence of the
one before. Many chains run at once. Events are opstream's own bytes, with other ids in the subjects. The protocol is
written by hand, since a client library needs more time for an event than the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import uuid_utils

from bench.harness import http_client
from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import process_usage
from bench.throughput.floor import KIND, sample_operation
from opstream_journal.group_commit import IN_FLIGHT
from opstream_schemas.events import CONTENT_TYPE

HOST: Final = "127.0.0.1"
MAX_BATCH: Final = 1_000
"""Messages; the broker's limit."""

_TIMEOUT: Final = 30.0
_PAUSE: Final = 0.005
"""Seconds until events are sent again that the broker refused because an event before them was still being stored."""


class Chains(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    """Of the server to connect to."""
    pids: list[int]
    """Processes whose use of the processor is wanted."""
    streams: int
    """An operation's stream is chosen by its id; its subjects begin with the stream's name, `f0` for the first one."""
    chains: int
    is_batching: bool
    """All events that wait are stored as one atomic batch: one batch at a time for each stream."""
    start: float
    """Seconds since the epoch; the same for all clients."""
    warm_up: float
    """Seconds before the time is taken."""
    seconds: float


class ChainsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one client, while the time was taken."""

    events: int
    commits: int
    """Answers of the broker: one for an event, or for a batch."""
    all_events: int
    """From the connection to the end, so before and after the time was taken, too."""
    seconds: float
    cpu: float
    """Seconds of the processor that this client took."""
    servers_cpu: float
    latency: Latency
    """From the moment at which an event could be sent to its acknowledgement."""


class _Refusal(msgspec.Struct):
    err_code: int = 0


class _Answer(msgspec.Struct):
    seq: int = 0
    count: int = 0
    error: _Refusal | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


class _Chain:
    """The operation that a chain is storing."""

    __slots__ = ("filter", "operation_id", "ready_at", "sequence", "step", "stream", "stream_name")

    def __init__(self, streams: int) -> None:
        self.operation_id = uuid_utils.uuid7().hex
        self.stream = int(self.operation_id[-8:], 16) % streams
        self.stream_name = f"f{self.stream}"
        self.filter = f"{self.stream_name}.{self.operation_id}.>"
        self.step = 0
        self.sequence = 0
        self.ready_at = 0.0


class _Client(asyncio.Protocol):
    def __init__(self, task: Chains) -> None:
        self._task = task
        self._events = [(f"{KIND.resource}.{KIND.action}.{name}", body) for name, body in sample_operation().events]
        self._inbox = f"_INBOX.{uuid_utils.uuid7().hex}"
        self._transport: Any = None
        self._buffer = b""
        self._out: list[bytes] = []
        self._waiting: dict[int, list[_Chain]] = {}
        self._number = 0
        self._ready: list[list[_Chain]] = [[] for _ in range(task.streams)]
        self._is_committing = [False] * task.streams
        self._is_ended = False
        self.latencies: list[float] = []
        self.events = 0
        self.commits = 0
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        options = b'{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"raw","version":"0"}'
        self._transport.write(b"CONNECT %s\r\nSUB %s.* 1\r\nPING\r\n" % (options, self._inbox.encode()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the broker closed the connection: {exc}")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        position = 0
        while (end := buffer.find(b"\r\n", position)) >= 0:
            line = buffer[position:end]
            if line.startswith(b"MSG"):
                _, subject, _, size = line.split()
                after = end + 2 + int(size)
                if len(buffer) < after + 2:
                    break
                self._answered(int(subject[len(self._inbox) + 1 :]), buffer[end + 2 : after])
                position = after + 2
                continue
            position = end + 2
            if line == b"PING":
                self._out.append(b"PONG\r\n")
            elif line == b"PONG":
                self.connected.set_result(None)
            elif not line.startswith(b"INFO"):
                self._fail(f"the broker sent {line!r}")
                return
        self._buffer = buffer[position:]
        self._flush()

    def begin(self) -> None:
        """Begin all chains."""
        for _ in range(self._task.chains):
            self._enqueue(_Chain(self._task.streams))
        self._flush()

    def end(self) -> None:
        """Begin nothing more; `done` when all is answered."""
        self._is_ended = True
        if not self._waiting:
            self.done.set_result(None)

    def _enqueue(self, chain: _Chain) -> None:
        chain.ready_at = time.perf_counter()
        if self._task.is_batching:
            self._ready[chain.stream].append(chain)
        else:
            self._send([chain])

    def _flush(self) -> None:
        if self._task.is_batching and not self._is_ended:
            for stream, ready in enumerate(self._ready):
                if ready and not self._is_committing[stream]:
                    self._is_committing[stream] = True
                    self._ready[stream] = ready[MAX_BATCH:]
                    self._send(ready[:MAX_BATCH])
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _send(self, chains: list[_Chain]) -> None:
        self._number += 1
        self._waiting[self._number] = chains
        last = len(chains) - 1
        batch = uuid_utils.uuid7().hex
        for number, chain in enumerate(chains):
            place = ""
            if last:
                place = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number + 1}\r\n"
                if number == last:
                    place += "Nats-Batch-Commit: 1\r\n"
            rest, body = self._events[chain.step]
            head = (
                f"NATS/1.0\r\nNats-Msg-Id: {uuid_utils.uuid7()}\r\n"
                f"Nats-Expected-Last-Subject-Sequence: {chain.sequence}\r\n"
                f"Nats-Expected-Last-Subject-Sequence-Subject: {chain.filter}\r\n"
                f"Content-Type: {CONTENT_TYPE}\r\n{place}\r\n"
            )
            reply = f"{self._inbox}.{self._number} " if number == last else ""
            sizes = f"{len(head)} {len(head) + len(body)}"
            subject = f"{chain.stream_name}.{chain.operation_id}.{rest}"
            self._out += (f"HPUB {subject} {reply}{sizes}\r\n{head}".encode(), body, b"\r\n")

    def _answered(self, number: int, data: bytes) -> None:
        answer = _decode(data)
        chains = self._waiting.pop(number)
        if answer.error is not None and answer.error.err_code in IN_FLIGHT:
            if not self._is_ended:
                asyncio.get_running_loop().call_later(_PAUSE, self._send_again, chains)
            elif not self._waiting:
                self.done.set_result(None)
            return
        if answer.error is not None or answer.count not in {0, len(chains)}:
            self._fail(f"the broker answered {data!r} to {len(chains)} events")
            return
        now = time.perf_counter()
        self.events += len(chains)
        self.commits += 1
        self._is_committing[chains[0].stream] = False
        sequence = answer.seq - len(chains)
        for chain in chains:
            sequence += 1
            self.latencies.append(now - chain.ready_at)
            chain.sequence = sequence
            chain.step += 1
            if not self._is_ended:
                self._enqueue(chain if chain.step < len(self._events) else _Chain(self._task.streams))
        if self._is_ended and not self._waiting and not self.done.done():
            self.done.set_result(None)

    def _send_again(self, chains: list[_Chain]) -> None:
        """A replicated stream may refuse an event that soon follows one of its operation; opstream tries again, too."""
        self._send(chains)
        self._flush()

    def _fail(self, text: str) -> None:
        for future in (self.connected, self.done):
            if not future.done():
                future.set_exception(http_client.LoadFailed(text))
        self._transport.close()


async def run(task: Chains) -> ChainsResult:
    """Run the chains.

    Raises:
        LoadFailed: the broker refused an event, or closed the connection.
    """
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: _Client(task), HOST, task.port)
    async with asyncio.timeout(_TIMEOUT + task.warm_up + task.seconds):
        await client.connected
        await _sleep_until(lambda: task.start - time.time())
        client.begin()
        await _sleep_until(lambda: task.start + task.warm_up - time.time())
        client.latencies.clear()
        events, commits, began = client.events, client.commits, time.perf_counter()
        cpu, servers_cpu = time.process_time(), _servers_cpu(task.pids)
        await _sleep_until(lambda: began + task.seconds - time.perf_counter())
        result = ChainsResult(
            events=client.events - events,
            commits=client.commits - commits,
            all_events=0,
            seconds=time.perf_counter() - began,
            cpu=time.process_time() - cpu,
            servers_cpu=_servers_cpu(task.pids) - servers_cpu,
            latency=percentiles(client.latencies or [task.seconds]),
        )
        client.end()
        await client.done
    return msgspec.structs.replace(result, all_events=client.events)


def _servers_cpu(pids: list[int]) -> float:
    return sum(process_usage(pid).cpu for pid in pids)


async def _sleep_until(left: Callable[[], float]) -> None:
    await asyncio.sleep(max(0.0, left()))


if __name__ == "__main__":
    http_client.run_task(run, Chains)
