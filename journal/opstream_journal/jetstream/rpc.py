"""Requests to the broker: one answer (`call`, `get_last`, `get_direct`) or many (`BatchReader`).

Callers: this package only.

nats-py's JetStream layer decodes answers with the standard library and hides the broker's error numbers; these few
calls are the hot paths of every service, so they are made by hand (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.msg import Msg

from opstream_journal.errors import BrokerRefused, EventTooLarge, JournalUnavailable

from .connection import Connection

CALL_TIMEOUT: Final = 2.0
"""Seconds for one answer. A healthy broker needs milliseconds, an election seconds; callers retry."""

_MAX_UNSENT_BYTES: Final = 1024 * 1024
"""Bytes that may wait for a broker that reads slowly; whoever comes then waits before sending, not after."""
_UNSENT_POLL_INTERVAL: Final = 0.005
_PROTOCOL_BYTES: Final = 64
_MAX_HEADER_BYTES: Final = 4096
"""More bytes than our headers ever have; only for a payload that comes so near to the limit they are counted."""
UNAVAILABLE: Final = 503

_NO_MESSAGE_FOUND: Final = 10037


class JetStreamErrorBody(msgspec.Struct):
    """The `error` member of a JetStream answer."""

    code: int
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    """A JetStream publish acknowledgement."""

    seq: int = 0
    duplicate: bool = False
    error: JetStreamErrorBody | None = None


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as a stream holds it. `data` and `hdrs` are base64 on the wire, bytes here."""

    subject: str
    seq: int
    data: bytes = b""
    hdrs: bytes = b""
    """Its headers as they were sent, in the format of NATS; direct reads don't fill this in."""


class _StoredMessageReply(msgspec.Struct):
    message: StoredMessage | None = None
    error: JetStreamErrorBody | None = None


_decode_ack: Final = msgspec.json.Decoder(PubAck).decode
_decode_message: Final = msgspec.json.Decoder(_StoredMessageReply).decode


async def call(
    link: Connection,
    subject: str,
    payload: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> Msg:
    """One request, one answer.

    Raises:
        JournalUnavailable: not connected, nobody listens, or no answer in time (then it may have had its effect).
        EventTooLarge: larger than the broker's `max_payload`; not sent.
    """
    check_payload_size(link, payload, headers)
    timeout -= await wait_until_sendable(link, timeout)
    try:
        return await link.inbox.request(subject, payload, headers, timeout)
    except nats.errors.OutboundBufferLimitError as error:
        raise JournalUnavailable("the broker connection is down", maybe_stored=False) from error
    except nats.errors.NoRespondersError as error:
        raise JournalUnavailable(f"nobody answers on {subject}", maybe_stored=False) from error
    except TimeoutError as error:
        raise JournalUnavailable(f"no answer on {subject} within {timeout:g} s", maybe_stored=True) from error
    except (nats.errors.Error, OSError) as error:
        raise JournalUnavailable(f"the broker connection failed: {error}", maybe_stored=True) from error


async def publish(
    link: Connection,
    subject: str,
    payload: bytes,
    headers: dict[str, str],
    *,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> int:
    """Publish to a stream and return the sequence under which it is stored (of the first copy, for a known id).

    Raises:
        JournalUnavailable: see `call`.
        RequestRefused: the stream answered with an error.
    """
    answer = await call(link, subject, payload, headers=headers, timeout=timeout)
    try:
        ack = _decode_ack(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {subject} is not JetStream's", maybe_stored=True) from error
    if ack.error is not None:
        raise BrokerRefused(ack.error.code, ack.error.err_code, ack.error.description)
    return ack.seq


async def get_last(
    link: Connection,
    stream: str,
    subject: str,
    *,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> StoredMessage | None:
    """The last message of a subject or filter, read from the stream's leader.

    Raises:
        JournalUnavailable: no leader answered.
        RequestRefused: another error, such as a missing stream.
    """
    return await _get_from_leader(link, stream, {"last_by_subj": subject}, timeout)


async def get_next(link: Connection, stream: str, subject: str, sequence: int) -> StoredMessage | None:
    """The first message of a subject or filter at or after a stream sequence, read from the stream's leader.

    Raises:
        JournalUnavailable: no leader answered.
        RequestRefused: another error, such as a missing stream.
    """
    return await _get_from_leader(link, stream, {"next_by_subj": subject, "seq": sequence}, CALL_TIMEOUT)


async def get_at(link: Connection, stream: str, sequence: int) -> StoredMessage | None:
    """The message at a stream sequence, read from the stream's leader; raises as `get_next` does."""
    return await _get_from_leader(link, stream, {"seq": sequence}, CALL_TIMEOUT)


async def _get_from_leader(
    link: Connection, stream: str, request: Mapping[str, Any], seconds: float
) -> StoredMessage | None:
    answer = await call(link, f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(request), timeout=seconds)
    try:
        decoded = _decode_message(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer about {stream} is not JetStream's", maybe_stored=False) from error
    if decoded.error is None:
        return decoded.message
    if decoded.error.err_code == _NO_MESSAGE_FOUND:
        return None
    if decoded.error.code == UNAVAILABLE:
        raise JournalUnavailable(f"{stream}: {decoded.error.description}", maybe_stored=False)
    raise BrokerRefused(decoded.error.code, decoded.error.err_code, decoded.error.description)


async def get_direct(link: Connection, stream: str, subject: str) -> StoredMessage | None:
    """The last message of one subject from any replica: fast, and on a cluster perhaps behind (NATS ADR-31).

    Raises:
        JournalUnavailable: nobody answered.
        RequestRefused: another error.
    """
    answer = await call(link, f"$JS.API.DIRECT.GET.{stream}.{subject}")
    headers = answer.headers or {}
    status = headers.get("Status")
    if status == "404":
        return None
    if status is not None:
        raise BrokerRefused(int(status), 0, headers.get("Description", ""))
    if "KV-Operation" in headers:
        return None
    return StoredMessage(subject, int(headers["Nats-Sequence"]), answer.data)


def expected_version_headers(subjects: str, sequence: int) -> dict[str, str]:
    """The headers with which a stream takes a message only while the last one on `subjects`, a filter, has that
    sequence; 0: while there is none."""
    return {
        "Nats-Expected-Last-Subject-Sequence": str(sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects,
    }


def had_expected_version(message: StoredMessage, subjects: str, sequence: int) -> bool:
    """Whether a message, as `get_last` and `get_next` give it, was taken with that `guard`."""
    lines = (
        f"\r\n{name}: {value}\r\n".encode() for name, value in expected_version_headers(subjects, sequence).items()
    )
    return all(line in message.hdrs for line in lines)


def check_payload_size(link: Connection, payload: bytes, headers: Mapping[str, str] | None) -> None:
    """Refuse what the broker would.

    Raises:
        EventTooLarge: larger than the broker's `max_payload`.
    """
    # The client checks the body alone; one byte too many with the headers, and the broker closes the connection.
    if not link.is_connected or len(payload) + _MAX_HEADER_BYTES < link.nc.max_payload:
        return
    size = len(payload) + sum(len(key) + len(value.encode()) + 4 for key, value in (headers or {}).items())
    if size + _PROTOCOL_BYTES > link.nc.max_payload:
        raise EventTooLarge(f"{size} bytes are more than the broker's max_payload of {link.nc.max_payload}")


async def wait_until_sendable(link: Connection, seconds: float) -> float:
    """Wait until what was written before has left for the broker, and return the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        if not link.is_connected:
            raise JournalUnavailable("the broker connection is down", maybe_stored=False)
        waited = loop.time() - began
        if waited >= seconds:
            raise JournalUnavailable(f"the broker took nothing for {seconds:g} s", maybe_stored=False)
        if link.nc.pending_data_size <= _MAX_UNSENT_BYTES:
            return waited
        await link.sleep(_UNSENT_POLL_INTERVAL)
