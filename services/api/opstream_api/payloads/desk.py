"""Which payload a request means, and its bytes: whole and checked, a part of it, or a URL at which the store has them.

Only what an event of the operation names is found, and only below the operation's own id (docs/adr/0075).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Final, NamedTuple

from opstream_api.errors import ApiError, note_payload_success, payload_error
from opstream_api.http.responses import JSON
from opstream_api.operations.status import StatusReader
from opstream_payloads import PayloadError, Payloads, StoreUnavailable
from opstream_schemas.errors import ErrorCode
from opstream_schemas.payloads.payload_ref import PayloadRef

from .ranges import ByteRange

PRESIGNED_FOR: Final = timedelta(minutes=5)
"""How long a URL of the store works, to which a client is sent: long enough to begin a download."""


class FoundPayload(NamedTuple):
    """A payload of an operation."""

    operation_id: str
    """The stored one."""
    ref: PayloadRef
    media_type: str
    file_name: str
    """Under which a browser saves it."""

    @property
    def etag(self) -> str:
        """Return its entity tag: its bytes never change."""
        return f'"{self.ref.sha256}"'


class PayloadDesk:
    """Finds and reads payloads for clients.

    Args:
        payloads: the store; None if there is none.
        status: reads operations.
    """

    def __init__(self, payloads: Payloads | None, status: StatusReader) -> None:
        self._payloads = payloads
        self._status = status

    async def find(self, operation_id: str, unique: str) -> FoundPayload:
        """Return a payload that an event of an operation names.

        Args:
            operation_id: the stored id.
            unique: the last part of the payload's URI.

        Raises:
            ApiError: `PayloadNotFound`; as `StatusReader.read`.
        """
        operation = await self._status.read(operation_id)
        for file in (*operation.attachments, *operation.uploads):
            if _is(file.payload, operation_id, unique):
                return FoundPayload(operation_id, file.payload, file.media_type, file.file_name)
        if operation.confidential:
            raise ApiError(ErrorCode.PAYLOAD_NOT_FOUND, "the operation is confidential: its status has its result")
        for name, document in (("input.json", operation.input_payload), ("result.json", operation.result_payload)):
            if document is not None and _is(document, operation_id, unique):
                return FoundPayload(operation_id, document, JSON, name)
        raise ApiError(ErrorCode.PAYLOAD_NOT_FOUND, "the operation has no such payload, or a later one has replaced it")

    async def url(self, found: FoundPayload) -> str:
        """Return a URL at which the store serves a payload itself; empty if it does not.

        Raises:
            ApiError: `PayloadStoreUnavailable`, `PayloadUnreadable`.
        """
        try:
            return await self._store.presigned(found.operation_id, found.ref, PRESIGNED_FOR)
        except PayloadError as error:
            raise _error(found, error) from error

    async def open(self, found: FoundPayload, part: ByteRange | None) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a payload, or of a part. The first of them are there.

        The whole is checked, and its last bytes are sent only once it is right. So a client that gets as many bytes as
        the answer says has the right ones.

        Raises:
            ApiError: `PayloadStoreUnavailable`, `PayloadUnreadable`; also while it is read.
        """
        try:
            if part is None:
                pieces = self._store.stream(found.operation_id, found.ref)
            else:
                pieces = self._store.stream_range(found.operation_id, found.ref, part.start, part.length)
            first = await anext(pieces, b"")
        except PayloadError as error:
            raise _error(found, error) from error
        note_payload_success()
        return _following(found, first, pieces)

    @property
    def _store(self) -> Payloads:
        if self._payloads is None:
            raise StoreUnavailable("this process has no payload store")
        return self._payloads


async def _following(
    found: FoundPayload, first: bytes, pieces: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        try:
            if first:
                yield first
            async for piece in pieces:
                yield piece
        except PayloadError as error:
            raise _error(found, error) from error


def _is(ref: PayloadRef, operation_id: str, unique: str) -> bool:
    return ref.uri == f"payload:{operation_id}/{unique}"


def _error(found: FoundPayload, error: PayloadError) -> ApiError:
    return payload_error(error, f"{found.file_name} can't be read")
