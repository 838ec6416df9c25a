"""Publishes messages over a connection of nats-py, in the bytes that nats-py would send.

nats-py's `publish` appends to a list and wakes a task, which writes in the next turn of the event loop. A sender writes
at once, and several messages in one go. uvloop collects what is written in one turn, and sends it at its end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.client import Client

_API: Final = "$JS.API"
_MAX_DIRECT_BYTES: Final = 64 * 1024
"""Unsent bytes in the socket's buffer up to which a message goes there at once. With more, nats-py's flusher waits."""
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

    def _command(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
        if not subject or _BLANK.search(subject) or (reply and _BLANK.search(reply)):
            raise nats.errors.BadSubjectError
        if self._nc._status != Client.CONNECTED:  # noqa: SLF001 - its property is slower
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
        if transport is not None and not nc._pending and transport.get_write_buffer_size() <= _MAX_DIRECT_BYTES:  # noqa: SLF001 - nats-py hides what is unsent
            transport.write(command)
            return
        nc._pending.append(command)  # noqa: SLF001
        nc._pending_data_size += len(command)  # noqa: SLF001
        if nc._flush_queue.empty():  # noqa: SLF001
            nc._flush_queue.put_nowait(asyncio.get_running_loop().create_future())  # noqa: SLF001


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
    writer = getattr(nc._transport, "_io_writer", None)  # noqa: SLF001 - nats-py hides its socket
    return None if writer is None else writer.transport
