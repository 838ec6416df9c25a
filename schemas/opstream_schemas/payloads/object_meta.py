"""The metadata of a payload in JetStream's object store, as NATS ADR-20 writes it. Pure."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as EncodingError
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.errors import InvalidEvent

from .object_subjects import PAYLOADS_BUCKET
from .payload_ref import PayloadKey

CHUNK: Final = 256 * 1024
"""Bytes of a chunk: large enough that a sync for each costs little, small enough for a broker's default
`max_payload` of 1 MiB."""
STRIDE: Final = 64
"""Of so many chunks the stream sequence of the first is kept, so that a read from the middle begins near it."""

_DIGEST: Final = "SHA-256="
_SEQUENCES: Final = "opstream-sequences"


class ObjectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The member `options`."""

    max_chunk_size: int


class ObjectMeta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The metadata of an object."""

    name: str
    bucket: str
    nuid: str
    """Names the chunks (`object_subjects`)."""
    size: int
    mtime: str
    """When it was stored, by its writer's clock (RFC 3339)."""
    chunks: int
    digest: str
    """`SHA-256=` and the hash in URL-safe base64."""
    options: ObjectOptions
    metadata: dict[str, str] = {}
    """Further members, free to every writer."""
    deleted: bool = False
    """True for what another program has deleted. We remove the message itself."""

    @property
    def sha256(self) -> str:
        """Return the hash in hex; empty if there is none."""
        try:
            return urlsafe_b64decode(self.digest.removeprefix(_DIGEST)).hex()
        except (EncodingError, ValueError):
            return ""

    @property
    def sequences(self) -> tuple[int, ...]:
        """Return the stream sequence of the first of each `STRIDE` chunks, as far as they are known."""
        words = self.metadata.get(_SEQUENCES, "").split()
        return tuple(int(word) for word in words if word.isascii() and word.isdigit())


def object_meta(
    key: PayloadKey,
    nuid: str,
    *,
    size: int,
    sha256: str,
    sequences: Sequence[int],
    chunks: int,
    chunk_size: int,
    at: datetime,
) -> bytes:
    """Return the metadata of a payload, encoded.

    Args:
        key: of the payload.
        nuid: of its chunks.
        size: bytes.
        sha256: in hex.
        sequences: the stream sequence of the first of each `STRIDE` chunks.
        chunks: how many there are.
        chunk_size: bytes of each but the last.
        at: now, with time zone.
    """
    digest = urlsafe_b64encode(bytes.fromhex(sha256)).decode()
    return msgspec.json.encode(
        ObjectMeta(
            name=str(key),
            bucket=PAYLOADS_BUCKET,
            nuid=nuid,
            size=size,
            mtime=at.isoformat().replace("+00:00", "Z"),
            chunks=chunks,
            digest=f"{_DIGEST}{digest}",
            options=ObjectOptions(max_chunk_size=chunk_size),
            metadata={_SEQUENCES: " ".join(map(str, sequences))},
        )
    )


def decode_object_meta(data: bytes) -> ObjectMeta:
    """Decode the metadata of a payload.

    Raises:
        InvalidEvent: it is none.
    """
    try:
        return msgspec.json.decode(data, type=ObjectMeta)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the metadata of a payload can't be read: {error}") from error
