"""JetStream's protocol of snapshots: one stream as a sequence of chunks, to us and back.

The broker sends a snapshot to a subject of ours, in chunks of which it has a window under way: each is confirmed by an
empty message to its reply subject, which carries the chunk's size and number. An empty chunk is the end. To restore,
the broker names a subject; each chunk is a request there, and an empty one is the end. What the chunks mean is the
broker's business: since 2.15 they are an archive of messages and consumers, compressed with S2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import nats.errors

from opstream_journal import BrokerRefused, Connection, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.wire.received_message import ReceivedMessage

CHUNK: Final = 128 * 1024
"""Bytes of a chunk at most."""
WINDOW: Final = 4 * 1024 * 1024
"""Bytes that the broker sends before they are confirmed, at most."""
SILENCE: Final = 15.0
"""Seconds without any answer after which a broker is given up. It gives up a receiver after 5."""
RESTORE_CHUNK: Final = 16 * 1024
"""Bytes of a chunk to the broker at most. It confirms one when it has stored all that was whole in it, with a sync for
each message if it is so configured, and gives the restore up if that takes more than 5 seconds."""

_ANSWER_TIMEOUT: Final = 30.0
"""Seconds for the answer to a request: a cluster elects a leader for a stream that is restored."""
_END_TIMEOUT: Final = 600.0
"""Seconds for the answer at the end of a restore, before which the broker writes all to its disk."""
_INTEREST: Final = 4.0
"""Seconds in which the servers of a cluster learn that one of them listens for the chunks of a restore."""
_POLL: Final = 0.05
_ROOM_FOR_PROTOCOL: Final = 8 * 1024
_NO_CONTENT: Final = "204"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker says about a stream of which it has sent a snapshot, in its own form."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def last_sequence(self) -> int:
        """Return the stream sequence up to which messages are in the snapshot."""
        return int(self.state["last_seq"])


class SnapshotReceiver:
    """Receives the snapshot of one stream. Use it once.

    Args:
        connection: the connection.
        stream: name of the stream.
        write: called with each chunk, in order.
    """

    def __init__(self, connection: Connection, stream: str, write: Callable[[bytes], None]) -> None:
        self._connection = connection
        self._stream = stream
        self._write = write
        self._arrived: asyncio.Queue[ReceivedMessage | None] = asyncio.Queue()
        """Chunks, as many as the broker has under way at most; None for a connection that was lost."""
        self._expected = 1

    async def receive(self, *, has_consumers: bool) -> Snapshot:
        """Have the broker send the snapshot, and write it.

        Raises:
            JournalUnavailable: the broker was lost, or silent for `SILENCE` seconds.
            BrokerRefused: the broker refused, or could not read the stream to its end.
            OSError: from `write`.
        """
        inbox = self._connection.nc.new_inbox()
        self._connection.on_disconnect(self._lose)
        subscription = await self._connection.subscribe(inbox, self._arrived.put_nowait)
        request = {
            "deliver_subject": inbox,
            "no_consumers": not has_consumers,
            "chunk_size": chunk_size(self._connection),
            "window_size": WINDOW,
        }
        try:
            answer = await _ask(self._connection, f"$JS.API.STREAM.SNAPSHOT.{self._stream}", request)
            while await self._take():
                pass
        finally:
            self._connection.remove_disconnect_callback(self._lose)
            if self._connection.is_connected:
                await subscription.unsubscribe()
        return Snapshot(config=answer["config"], state=answer["state"])

    def _lose(self) -> None:
        self._arrived.put_nowait(None)

    async def _take(self) -> bool:
        """Write one chunk. Return False after the last one."""
        try:
            async with asyncio.timeout(SILENCE):
                message = await self._arrived.get()
        except TimeoutError as error:
            raise JournalUnavailable(
                f"the broker sent nothing of {self._stream} for {SILENCE:g} s", maybe_stored=False
            ) from error
        if message is None:
            raise JournalUnavailable(
                f"the connection to the broker was lost while {self._stream} was copied", maybe_stored=False
            )
        if not message.data:
            self._check_end(message)
            return False
        if message.reply:
            self._check_number(message)
        self._write(message.data)
        if message.reply:
            self._connection.sender.send(message.reply, b"")
        return True

    def _check_number(self, message: ReceivedMessage) -> None:
        """Check that no chunk is missing: its reply subject ends with its size and its number."""
        size, _, number = message.reply.rpartition(".")
        if (size.rpartition(".")[2], number) != (str(len(message.data)), str(self._expected)):
            raise JournalUnavailable(
                f"a chunk of {self._stream} is missing: {message.reply} came as number {self._expected}",
                maybe_stored=False,
            )
        self._expected += 1

    def _check_end(self, message: ReceivedMessage) -> None:
        if message.status not in {None, _NO_CONTENT}:
            why = (message.headers or {}).get("Description", "")
            raise BrokerRefused(int(message.status), 0, f"{self._stream} could not be copied to its end: {why}")


async def send_snapshot(connection: Connection, snapshot: Snapshot, chunks: Iterable[bytes]) -> dict[str, Any]:
    """Restore one stream from a snapshot, under the configuration that `snapshot` has. Return what the broker says.

    Raises:
        JournalUnavailable: the broker was lost, or did not answer.
        BrokerRefused: the broker refused, or could not read the snapshot.
        OSError: from `chunks`.
    """
    name = snapshot.config["name"]
    request = {"config": snapshot.config, "state": snapshot.state}
    target = (await _ask(connection, f"$JS.API.STREAM.RESTORE.{name}", request))["deliver_subject"]
    seconds = _INTEREST
    for chunk in chunks:
        answer = await _send_chunk(connection, target, chunk, seconds)
        if answer.data:
            _decode(answer, name)
        seconds = 0.0
    return _decode(await rpc.call(connection, target, b"", timeout=_END_TIMEOUT), name)


async def _send_chunk(connection: Connection, target: str, chunk: bytes, seconds: float) -> ReceivedMessage:
    """Send a chunk, for so many seconds again while our server does not know yet that another one listens."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while True:
        try:
            return await rpc.call(connection, target, chunk, timeout=SILENCE)
        except JournalUnavailable as error:
            if not isinstance(error.__cause__, nats.errors.NoRespondersError) or clock() > until:
                raise
        await connection.sleep(_POLL)


def chunk_size(connection: Connection) -> int:
    """Return the bytes of a chunk that the broker accepts as one message."""
    return max(1024, min(CHUNK, connection.nc.max_payload - _ROOM_FOR_PROTOCOL))


async def _ask(connection: Connection, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = await rpc.call(connection, subject, msgspec.json.encode(request), timeout=_ANSWER_TIMEOUT)
    return _decode(answer, subject)


def _decode(answer: ReceivedMessage, about: str) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = msgspec.json.decode(answer.data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer about {about} is not JetStream's", maybe_stored=True) from error
    if "error" in decoded:
        refusal = msgspec.convert(decoded["error"], rpc.JetStreamErrorBody)
        raise BrokerRefused(refusal.code, refusal.err_code, refusal.description)
    return decoded
