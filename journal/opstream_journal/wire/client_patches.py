"""Corrections of nats-py for every connection: bytes that it can't decode, a socket that does not time out, and the
subjects of an account that imports JetStream's API under another name.

nats-server checks neither the encoding of a subject nor the form of a header block. nats-py 2.16 decodes a subject as
UTF-8, and expects a header block to begin as NATS says. An error in either ends its read loop silently. Some ten
seconds later nats-py finds the connection stale, connects again, and gets the same message again. So one such message
would stop every reader of the stream for ever.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final, NamedTuple

from nats.aio.client import Client

_API: Final = "$JS.API"


class SubjectPrefixes(NamedTuple):
    """The first tokens of subjects that the broker's permissions may ask for."""

    inbox: str = "_INBOX"
    """Of the inboxes for answers. A prefix of its own keeps other users of the account from reading them."""
    api: str = _API
    """Of JetStream's API, as the account of this connection imports it."""


DEFAULT_PREFIXES: Final = SubjectPrefixes()

UNACKNOWLEDGED_LIMIT: Final = 10.0
"""Seconds."""


def tolerate_invalid_bytes(nc: Client) -> None:
    """Make nats-py read a message with a subject or reply that is not UTF-8, or with headers that it can't parse.

    U+FFFD stands for the wrong bytes of a subject; the message has no headers. Such a subject does not belong to
    opstream, so readers skip the message like any foreign one.
    """
    build, process = nc._build_message, nc._process_headers  # noqa: SLF001 - nats-py has no other place for it

    def build_message(sid: int, subject: bytes, reply: bytes, *rest: Any) -> Any:  # noqa: ANN401 - passed on unchanged
        return build(sid, _readable(subject), _readable(reply), *rest)

    async def process_headers(headers: bytes | None) -> Any:  # noqa: ANN401 - as nats-py has it
        if headers is None:
            return None
        try:
            return await process(headers)
        except (IndexError, UnicodeDecodeError):
            return None

    nc._build_message = build_message  # type: ignore[assignment,method-assign] # noqa: SLF001
    nc._process_headers = process_headers  # type: ignore[method-assign] # noqa: SLF001


def _readable(subject: bytes) -> bytes:
    return subject if subject.isascii() else subject.decode(errors="replace").encode()


def limit_unacknowledged_time(nc: Client) -> None:
    """Make the kernel close a connection whose peer has not acknowledged any bytes for 10 s.

    Without that, nats-py finds the connection stale, but then waits until its unsent bytes have left. That takes a
    quarter of an hour if the broker has lost its power.
    """
    sock = socket_of(nc)
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # the socket was closed meanwhile
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_LIMIT * 1000))


def socket_of(nc: Client) -> socket.socket | None:
    """Return the socket of a client; None while it has none."""
    writer: Any = getattr(nc._transport, "_bare_io_writer", None)  # noqa: SLF001 - nats-py hides its socket
    return None if writer is None else writer.get_extra_info("socket")


def call_api_at(nc: Client, prefix: str) -> None:
    """Send what is published to JetStream's API to subjects that begin with `prefix` instead.

    An account can't import a service as `$JS.API.…`: its server would answer that JetStream is not enabled.
    """
    publish = nc.publish

    async def publish_there(subject: str, *rest: Any, **options: Any) -> None:  # noqa: ANN401 - passed on unchanged
        there = f"{prefix}{subject.removeprefix(_API)}" if subject.startswith(f"{_API}.") else subject
        await publish(there, *rest, **options)

    nc.publish = publish_there  # type: ignore[method-assign]
