"""The subjects of JetStream's object store (NATS ADR-20) with our names. No other module builds or parses one of them.

`$O.payloads.M.{name}` has the metadata of a payload, and is stored last: without it there is no payload.
`$O.payloads.C.{nuid}` has its chunks. Our `nuid` is `{day}.{operation}.{unique}.{try}`, so that the chunks of a day are
found with one request, and with them those that were begun and never ended. Readers of other makers take it as it is.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from datetime import date
from typing import Final, NamedTuple

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import OPERATION_ID_PATTERN

from .payload_ref import PayloadKey

PAYLOADS_BUCKET: Final = "payloads"
PAYLOADS_STREAM: Final = f"OBJ_{PAYLOADS_BUCKET}"
PAYLOADS_SUBJECTS: Final = (f"$O.{PAYLOADS_BUCKET}.C.>", f"$O.{PAYLOADS_BUCKET}.M.>")

PAYLOAD_WRITES: Final = (f"$O.{PAYLOADS_BUCKET}.C.*.*.*.*", f"$O.{PAYLOADS_BUCKET}.M.*")
"""Filters of what a writer of payloads publishes."""

_CHUNKS: Final = f"$O.{PAYLOADS_BUCKET}.C."
_NUID: Final = re.compile(rf"([0-9]{{8}})\.({OPERATION_ID_PATTERN})\.([0-9a-f]{{32}})\.[0-9a-f]{{8}}")


class StoredChunks(NamedTuple):
    """One try to store a payload, as the subject of its chunks says it."""

    nuid: str
    day: date
    """The day (UTC) of the writer on which it began."""
    key: PayloadKey


def chunks_nuid(key: PayloadKey, day: date, attempt: str) -> str:
    """Return the name of one try to store a payload.

    Args:
        key: of the payload.
        day: today, in UTC.
        attempt: 8 hexadecimal digits, drawn for this try.

    Raises:
        InvalidName: a part has another form.
    """
    nuid = f"{day:%Y%m%d}.{key.operation_id}.{key.unique}.{attempt}"
    if _NUID.fullmatch(nuid) is None:
        raise InvalidName(f"{nuid[:160]!r} is not the name of a payload's chunks")
    return nuid


def chunks_subject(nuid: str) -> str:
    """Return the subject of all chunks of one try."""
    return f"{_CHUNKS}{nuid}"


def chunks_of_day_filter(day: date) -> str:
    """Return the filter of the chunks of all payloads that were begun on a day."""
    return f"{_CHUNKS}{day:%Y%m%d}.>"


def metadata_subject(key: PayloadKey) -> str:
    """Return the subject of a payload's metadata. ADR-20 encodes the name, which may be any text."""
    return f"$O.{PAYLOADS_BUCKET}.M.{urlsafe_b64encode(str(key).encode()).decode()}"


def parse_chunks_subject(subject: str) -> StoredChunks:
    """Parse the subject of chunks.

    Raises:
        InvalidName: it has another form, as of an object that another program has put into the bucket.
    """
    nuid = subject.removeprefix(_CHUNKS)
    found = _NUID.fullmatch(nuid)
    try:
        if found is not None:
            day = date(int(found[1][:4]), int(found[1][4:6]), int(found[1][6:]))
            return StoredChunks(nuid, day, PayloadKey(found[2], found[3]))
    except ValueError as error:
        raise InvalidName(f"{subject[:160]!r} names no day") from error
    raise InvalidName(f"{subject[:160]!r} is not the subject of chunks of a payload")
