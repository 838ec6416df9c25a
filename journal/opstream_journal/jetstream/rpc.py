"""Requests to JetStream with one answer each: publish, read one message, any call.

nats-py's JetStream layer decodes answers with the standard library and hides the broker's error numbers. These calls
are the hot paths of every service, so they are made by hand (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import nats.errors

from opstream_journal.errors import BrokerRefused, EventTooLarge, JournalFull, JournalUnavailable, NoLeader
from opstream_journal.storage_limit import limit_of_refusal
from opstream_journal.wire.received_message import ReceivedMessage

from .connection import Connection
from .inbox import AnswerCheck
from .unanswered_publishes import stream_of

CALL_TIMEOUT: Final = 2.0
"""Seconds for one answer. A healthy broker needs milliseconds, the election of a leader seconds."""

_MAX_UNSENT_BYTES: Final = 1024 * 1024
"""Bytes that may wait for a broker that reads slowly. With more, a request waits before it is sent."""
_UNSENT_POLL_INTERVAL: Final = 0.005
_PROTOCOL_BYTES: Final = 64
_MAX_HEADER_BYTES: Final = 4096
"""More than our headers ever have. Their bytes are counted only for a payload that comes so near to the limit."""
UNAVAILABLE: Final = 503
STREAM_NOT_FOUND: Final = 10059
"""JetStream's `err_code` for a stream, or the stream of a bucket, that does not exist."""

_NO_MESSAGE_FOUND: Final = 10037
_API_TYPE: Final = b'"io.nats.jetstream.api.'
_API_TYPE_WITHIN: Final = 64
"""The first bytes of an answer, in which its type is."""
_SEQUENCE_DIGITS: Final = 20
"""Of the largest sequence. Python refuses to read a number of thousands of digits, which another writer may send."""
_EXPECTED_VERSION: Final = "Nats-Expected-Last-Subject-Sequence"


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
    """Its headers in the format of NATS; empty for a direct read."""
    time: str = ""
    """When it was stored, as the broker writes it (RFC 3339); empty for a direct read of a single message."""
    schedule: str = ""
    """Its header `Nats-Schedule`; only of a batched read."""
    message_id: str = ""
    """Its header `Nats-Msg-Id`; only of a batched read."""
    expected: int = 0
    """The expected version that it was appended with (`expected_version_headers`); 0 without one. Only of a read in a
    batch or by its sequence; `expected_version_of` has it for the others."""


class _StoredMessageReply(msgspec.Struct):
    message: StoredMessage | None = None
    error: JetStreamErrorBody | None = None


_decode_ack: Final = msgspec.json.Decoder(PubAck).decode
_decode_message: Final = msgspec.json.Decoder(_StoredMessageReply).decode


async def call(
    connection: Connection,
    subject: str,
    payload: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
    is_answer: AnswerCheck | None = None,
) -> ReceivedMessage:
    """One request, one answer.

    Args:
        connection: the connection.
        subject: of the request.
        payload: of the request.
        headers: of the request.
        timeout: seconds.
        is_answer: whether a message is the answer; others are ignored. None: for a call of JetStream's API whether the
            message is JetStream's, for any other subject any message.

    Raises:
        JournalUnavailable: not connected, no responder, or no answer in time (then it may have had its effect).
        EventTooLarge: larger than the broker's `max_payload`; not sent.
    """
    check_payload_size(connection, payload, headers)
    if not is_sendable(connection):
        timeout -= await wait_until_sendable(connection, timeout)
    try:
        return await connection.inbox.request(
            subject, payload, headers, timeout, is_answer or _answer_check_of(subject)
        )
    except nats.errors.OutboundBufferLimitError as error:
        raise JournalUnavailable("the broker connection is down", maybe_stored=False) from error
    except nats.errors.NoRespondersError as error:
        raise JournalUnavailable(f"no responder on {subject}", maybe_stored=False) from error
    except TimeoutError as error:
        raise JournalUnavailable(f"no answer on {subject} within {timeout:g} s", maybe_stored=True) from error
    except (nats.errors.Error, OSError) as error:
        raise JournalUnavailable(
            f"the broker connection failed: {str(error) or type(error).__name__}", maybe_stored=True
        ) from error


async def publish(
    connection: Connection,
    subject: str,
    payload: bytes,
    headers: dict[str, str],
    *,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> int:
    """Publish to a stream and return the sequence under which it is stored (of the first copy, for a known message id).

    Raises:
        JournalUnavailable: see `call`.
        JournalFull: the stream, the account or the server has reached its limit of storage.
        BrokerRefused: the stream answered with another error.
    """
    try:
        answer = await call(
            connection, subject, payload, headers=headers, timeout=timeout, is_answer=ack_check(subject)
        )
    except JournalUnavailable as error:
        if isinstance(error.__cause__, TimeoutError):
            connection.unanswered.add(subject)
        raise
    if connection.unanswered:
        connection.unanswered.remove(subject)
    try:
        ack = _decode_ack(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {subject} is not JetStream's", maybe_stored=True) from error
    if ack.error is not None:
        raise publish_refusal(connection, subject, ack.error)
    if not ack.seq:
        raise JournalUnavailable(f"the answer on {subject} is not JetStream's", maybe_stored=True)
    return ack.seq


def has_no_responders(error: BaseException) -> bool:
    """Return True if an error was caused by a subject that nothing listens on, or that the login may not use."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, nats.errors.NoRespondersError):
            return True
        cause = cause.__cause__
    return False


def publish_refusal(connection: Connection, subject: str, error: JetStreamErrorBody) -> JournalFull | BrokerRefused:
    """Return the exception for a publish that was refused. One for lack of room is noted, for the conditions."""
    refused = BrokerRefused(error.code, error.err_code, error.description)
    limit = limit_of_refusal(error.err_code, error.description, stream_of(subject))
    if limit is None:
        return refused
    connection.refused.add(limit)
    full = JournalFull(f"{limit.what} ({error.description}): {limit.next_step}")
    full.__cause__ = refused
    return full


def ack_check(subject: str) -> AnswerCheck:
    """Return the check whether a message is the answer to a publish on a subject: that of the subject's own stream.

    Other subscribers may answer, and so does each stream of another JetStream that stores the same subjects, as on a
    leaf node. JetStream names its stream in every answer, errors included.
    """
    return _ack_check_of(stream_of(subject))


@lru_cache(maxsize=64)
def _ack_check_of(stream: str) -> AnswerCheck:
    own = f'"stream":"{stream}"'.encode()
    return lambda message: own in message.data


async def get_last(
    connection: Connection,
    stream: str,
    subject: str,
    *,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> StoredMessage | None:
    """Return the last message of a subject or filter, from the stream's leader; None without one.

    Raises:
        JournalUnavailable: no leader answered.
        BrokerRefused: another error, such as a missing stream.
    """
    return await _get_from_leader(connection, stream, {"last_by_subj": subject}, timeout)


async def get_next(connection: Connection, stream: str, subject: str, sequence: int) -> StoredMessage | None:
    """Return the first message of a subject or filter from a stream sequence on, from the stream's leader.

    Raises:
        JournalUnavailable: no leader answered.
        BrokerRefused: another error, such as a missing stream.
    """
    return await _get_from_leader(connection, stream, {"next_by_subj": subject, "seq": sequence}, CALL_TIMEOUT)


async def get_at(connection: Connection, stream: str, sequence: int) -> StoredMessage | None:
    """Return the message at a stream sequence, from the stream's leader. Raises as `get_next` does."""
    return await _get_from_leader(connection, stream, {"seq": sequence}, CALL_TIMEOUT)


async def _get_from_leader(
    connection: Connection, stream: str, request: Mapping[str, Any], seconds: float
) -> StoredMessage | None:
    answer = await call(connection, f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(request), timeout=seconds)
    try:
        decoded = _decode_message(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer about {stream} is not JetStream's", maybe_stored=False) from error
    if decoded.error is None:
        return decoded.message
    if decoded.error.err_code == _NO_MESSAGE_FOUND:
        return None
    if decoded.error.code == UNAVAILABLE:
        raise NoLeader(f"{stream}: {decoded.error.description}")
    raise BrokerRefused(decoded.error.code, decoded.error.err_code, decoded.error.description)


async def get_direct(
    connection: Connection,
    stream: str,
    subject: str,
    *,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> StoredMessage | None:
    """Return the last message of one subject, from any replica: fast, and on a cluster perhaps out of date (ADR-31).

    Raises:
        JournalUnavailable: no replica answered.
        BrokerRefused: another error.
    """
    return await _get_direct(connection, f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout)


async def get_direct_at(
    connection: Connection,
    stream: str,
    sequence: int,
    *,
    timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - handed on to nats-py
) -> StoredMessage | None:
    """Return the message at a stream sequence, with its expected version, from any replica; None if it has none there.

    Raises:
        JournalUnavailable, BrokerRefused: as `get_direct`.
    """
    request = msgspec.json.encode({"seq": sequence})
    return await _get_direct(connection, f"$JS.API.DIRECT.GET.{stream}", request, timeout)


async def _get_direct(connection: Connection, subject: str, request: bytes, seconds: float) -> StoredMessage | None:
    answer = await call(connection, subject, request, timeout=seconds)
    headers = answer.headers or {}
    status = headers.get("Status")
    if status == "404":
        return None
    if status is not None:
        raise BrokerRefused(int(status), 0, headers.get("Description", ""))
    if "KV-Operation" in headers:
        return None
    return StoredMessage(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        answer.data,
        expected=expected_version_in(headers),
    )


def expected_version_headers(subjects: str, sequence: int) -> dict[str, str]:
    """Return the headers for an append with an expected version (optimistic concurrency).

    The stream accepts the message only while the last one on `subjects`, a filter, has that sequence; with 0, only
    while there is none.
    """
    return {
        _EXPECTED_VERSION: str(sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects,
    }


def expected_version_in(headers: Mapping[str, str]) -> int:
    """Return the expected version in the headers of a stored message; 0 without one that is a number."""
    return _sequence_in(headers.get(_EXPECTED_VERSION, ""))


def expected_version_of(message: StoredMessage) -> int:
    """Return the expected version of a message that was read by `get_last` or `get_next`; 0 without one."""
    _, name, rest = message.hdrs.partition(f"\r\n{_EXPECTED_VERSION}: ".encode())
    return _sequence_in(rest.partition(b"\r\n")[0].decode("ascii", "replace")) if name else 0


def _sequence_in(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= _SEQUENCE_DIGITS else 0


def had_expected_version(message: StoredMessage, subjects: str, sequence: int) -> bool:
    """Return True if a message, read by `get_last` or `get_next`, was appended with that expected version."""
    lines = (
        f"\r\n{name}: {value}\r\n".encode() for name, value in expected_version_headers(subjects, sequence).items()
    )
    return all(line in message.hdrs for line in lines)


def check_payload_size(connection: Connection, payload: bytes, headers: Mapping[str, str] | None) -> None:
    """Check that the broker accepts a message of this size.

    Raises:
        EventTooLarge: larger than the broker's `max_payload`.
    """
    # nats-py checks the body alone. If the headers make a message too large, the broker closes the connection.
    if not connection.is_connected or len(payload) + _MAX_HEADER_BYTES < connection.nc.max_payload:
        return
    size = len(payload) + sum(len(key) + len(value.encode()) + 4 for key, value in (headers or {}).items())
    if size + _PROTOCOL_BYTES > connection.nc.max_payload:
        raise EventTooLarge(f"{size} bytes are more than the broker's max_payload of {connection.nc.max_payload}")


def _answer_check_of(subject: str) -> AnswerCheck:
    if not subject.startswith("$JS.API."):
        return _is_any
    return _is_direct_answer if subject.startswith("$JS.API.DIRECT.") else _is_api_answer


def _is_any(_message: ReceivedMessage) -> bool:
    return True


def _is_direct_answer(message: ReceivedMessage) -> bool:
    return message.headers is not None and ("Nats-Sequence" in message.headers or "Status" in message.headers)


def _is_api_answer(message: ReceivedMessage) -> bool:
    return _API_TYPE in message.data[:_API_TYPE_WITHIN]


def is_sendable(connection: Connection) -> bool:
    """Return True if the connection is up and little waits to be sent."""
    return connection.is_connected and connection.nc.pending_data_size <= _MAX_UNSENT_BYTES


async def wait_until_sendable(connection: Connection, seconds: float) -> float:
    """Wait until little enough waits to be sent. Return the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        if not connection.is_connected:
            raise JournalUnavailable("the broker connection is down", maybe_stored=False)
        waited = loop.time() - began
        if waited >= seconds:
            raise JournalUnavailable(f"the broker read nothing for {seconds:g} s", maybe_stored=False)
        if connection.nc.pending_data_size <= _MAX_UNSENT_BYTES:
            return waited
        await connection.sleep(_UNSENT_POLL_INTERVAL)
