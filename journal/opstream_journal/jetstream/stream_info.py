"""What the broker tells about a stream: its bounds, its limits, and the request for them."""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_journal.errors import BrokerRefused, JournalUnavailable, NoLeader, NotProvisioned
from opstream_journal.missing_streams import missing_stream_text

from . import rpc
from .connection import Connection

_NOT_FOUND: Final = 404


class LostData(msgspec.Struct, frozen=True):
    """What a server has cut from damaged blocks since it started."""

    bytes: int = 0


class StreamBounds(msgspec.Struct, frozen=True):
    """The first and the last sequence of a stream."""

    first: int = msgspec.field(name="first_seq")
    """In an empty stream, the next sequence."""
    last: int = msgspec.field(name="last_seq")
    """In an empty stream, lower than `first`."""
    messages: int
    last_ts: str = ""
    """When the broker stored the last message, also if that is gone."""
    lost: LostData | None = None
    """None if nothing was cut."""
    deleted: list[int] | None = None
    """The sequences between the first and the last one that have no message, if the request asked for them."""


class StreamLimits(msgspec.Struct):
    """What of a stream's configuration lets messages go."""

    max_age: int = 0
    """Nanoseconds; 0 for never."""
    num_replicas: int = 1
    metadata: dict[str, str] = {}


class StreamInfo(msgspec.Struct):
    """JetStream's answer about a stream or a consumer."""

    state: StreamBounds | None = None
    created: str = ""
    config: StreamLimits | None = None
    num_pending: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode_info: Final = msgspec.json.Decoder(StreamInfo).decode


async def stream_api_request(connection: Connection, stream: str, what: str, payload: bytes = b"") -> StreamInfo:
    """Call the JetStream API for a stream.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        BrokerRefused: the broker refused.
    """
    answer = await rpc.call(connection, f"$JS.API.{what}", payload)
    try:
        info = _decode_info(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer about {stream} is not JetStream's", maybe_stored=False) from error
    if info.error is None:
        return info
    if info.error.code == _NOT_FOUND:
        raise NotProvisioned(missing_stream_text(stream))
    if info.error.code == rpc.UNAVAILABLE:
        raise NoLeader(f"{stream}: {info.error.description}")
    raise BrokerRefused(info.error.code, info.error.err_code, info.error.description)
