"""Publishes messages over a connection of nats-py, in the bytes that nats-py would send.

All that is published in one turn of the event loop is written in one go at the beginning of the next: a write for each
message costs more than the message. nats-py does the same with a queue, a future and a task.
"""

# ruff: noqa: SLF001 - nats-py hides what is unsent

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.client import Client

_API: Final = "$JS.API"
_MAX_BUFFERED: Final = 64 * 1024
"""Bytes in the socket's buffer up to which more are written. With more, nats-py's flusher waits until they are sent."""
_BLANK: Final = re.compile(r"[ \t\r\n]")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NEWLINES: Final = str.maketrans({"\r": " ", "\n": " "})
_KNOWN_NAMES: Final = 256


class Outgoing(NamedTuple):
    """A message to publish."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] | None = None


class Sender:
    """Publishes over one connection.

    Args:
        nc: the connection.
        api_prefix: the first tokens of subjects of JetStream's API, as the account of this connection imports it.
    """

    def __init__(self, nc: Client, api_prefix: str = _API) -> None:
        self._nc = nc
        self._loop = asyncio.get_running_loop()
        self._is_flush_due = False
        self._api_prefix = "" if api_prefix == _API else api_prefix

    def send(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish a message. It is not waited for; while the connection is down, nothing is kept for later.

        Raises:
            nats.errors.Error: it was not sent, as nats-py's `publish` raises it.
        """
        self._write(self._command(subject, data, reply, headers), 1, len(data))

    def send_many(self, messages: Iterable[Outgoing]) -> None:
        """Publish messages in one go and in this order, or none of them.

        Raises:
            nats.errors.Error: none was sent, as nats-py's `publish` raises it.
        """
        commands, size = [], 0
        for subject, data, reply, headers in messages:
            commands.append(self._command(subject, data, reply, headers))
            size += len(data)
        if commands:
            self._write(b"".join(commands), len(commands), size)

    def flush(self) -> None:
        """Write what was published and is not written yet. It happens by itself in the next turn of the loop."""
        self._is_flush_due = False
        nc: Any = self._nc
        transport = _socket_transport(nc)
        if not nc._pending or (transport is not None and transport.is_closing()):
            return
        is_direct = nc._status == Client.CONNECTED and transport is not None
        if is_direct and transport.get_write_buffer_size() <= _MAX_BUFFERED:
            commands = b"".join(nc._pending)
            nc._pending, nc._pending_data_size = [], 0
            transport.write(commands)
        elif nc._flush_queue.empty():
            nc._flush_queue.put_nowait(self._loop.create_future())

    def forget_unsent(self) -> None:
        """Drop what was not written before the connection was lost; nats-py would send it after the next connect."""
        nc: Any = self._nc
        nc._pending, nc._pending_data_size = [], 0

    def _command(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
        if not subject or _BLANK.search(subject) or (reply and _BLANK.search(reply)):
            raise nats.errors.BadSubjectError
        if self._nc._status != Client.CONNECTED:
            self._check_status()
        if len(data) > self._nc.max_payload:
            raise nats.errors.MaxPayloadError
        if self._api_prefix and subject.startswith(f"{_API}."):
            subject = f"{self._api_prefix}{subject.removeprefix(_API)}"
        return encode_publish(subject, data, reply, headers)

    def _check_status(self) -> None:
        if self._nc.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._nc.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self._nc.is_connected:
            raise nats.errors.OutboundBufferLimitError

    def _write(self, command: bytes, messages: int, size: int) -> None:
        nc: Any = self._nc
        transport = _socket_transport(nc)
        if transport is not None and transport.is_closing():
            # nats-py has not noticed yet. It would keep the message, and send it after the next connect.
            raise nats.errors.OutboundBufferLimitError
        nc.stats["out_msgs"] += messages
        nc.stats["out_bytes"] += size
        nc._pending.append(command)
        nc._pending_data_size += len(command)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)


def encode_publish(subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
    """Return the command that publishes a message.

    Raises:
        nats.errors.BadHeaderError: the name of a header has other characters than NATS allows.
    """
    if headers is None:
        return b"%b%b\r\n" % (f"PUB {subject} {reply} {len(data)}\r\n".encode(), data)
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if checked := _checked_name(name):
            lines.append(f"{checked}: {value.strip().translate(_NEWLINES) if _has_newline(value) else value.strip()}")
    block = "\r\n".join((*lines, "\r\n")).encode()
    sizes = f"{len(block)} {len(block) + len(data)}"
    return b"%b%b%b\r\n" % (f"HPUB {subject} {reply} {sizes}\r\n".encode(), block, data)


def _has_newline(value: str) -> bool:
    return "\n" in value or "\r" in value


@lru_cache(maxsize=_KNOWN_NAMES)
def _checked_name(name: str) -> str:
    stripped = name.strip()
    if stripped and not _NAME.fullmatch(stripped):
        raise nats.errors.BadHeaderError(stripped)
    return stripped


def _socket_transport(nc: Any) -> Any:  # noqa: ANN401 - nats-py has no types for it
    """Return the transport of a TCP or TLS connection; None for any other."""
    writer = getattr(nc._transport, "_io_writer", None)
    return None if writer is None else writer.transport
