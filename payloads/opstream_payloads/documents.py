"""Inputs and results: in their event if they fit, otherwise in the payload store, with a claim check in the event.

The payload is stored before the event is appended, so no event names what is not there (docs/adr/0075).
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_journal.provisioning.topology import INLINE_LIMIT
from opstream_schemas.payloads.payload_ref import PayloadRef

from .errors import PayloadDamaged, StoreUnavailable
from .payloads import Payloads

DOCUMENT_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of an input or a result that are read at once."""

UPLOAD_LIMIT: Final = 1024**3
"""Bytes of a file that a client uploads, by default: one upload should not fill the disk of a broker."""

_JSON: Final = "application/json"
_NO_STORE: Final = (
    "this process has no payload store: run 'opstream provision --update', and 'opstream broker-config' where each "
    "role has a login of its own, and start it again"
)


class Documents:
    """The inputs and results of all operations.

    Args:
        payloads: the store; None for none, as before `opstream provision --update` has made it.
        inline_limit: bytes up to which a document stays in its event.
    """

    def __init__(self, payloads: Payloads | None, *, inline_limit: int = INLINE_LIMIT) -> None:
        self._payloads = payloads
        self._inline_limit = inline_limit

    def is_inline(self, document: bytes) -> bool:
        """Return True if a document stays in its event: it is small enough, or there is no store."""
        return self._payloads is None or len(document) <= self._inline_limit

    async def store(self, operation_id: str, document: bytes) -> PayloadRef:
        """Store a document that is not inline.

        Args:
            operation_id: the id under which the operation is stored.
            document: JSON.

        Raises:
            StoreUnavailable: it is not stored.
        """
        if self._payloads is None:
            raise StoreUnavailable(_NO_STORE)
        return await self._payloads.store_payload(operation_id, document, media_type=_JSON)

    async def read(
        self, operation_id: str, document: msgspec.Raw | msgspec.UnsetType, payload: PayloadRef | None
    ) -> msgspec.Raw:
        """Return the JSON of an input or a result, wherever it is.

        Args:
            operation_id: the id under which the operation is stored.
            document: as the event has it.
            payload: as the event has it.

        Raises:
            PayloadMissing, PayloadDamaged, PayloadTooLarge, StoreUnavailable: it can't be had.
        """
        if isinstance(document, msgspec.Raw):
            return document
        if payload is None:
            raise PayloadDamaged(f"an event of operation {operation_id} has neither a document nor a claim check")
        if self._payloads is None:
            raise StoreUnavailable(f"{payload.uri} can't be read: {_NO_STORE}")
        return msgspec.Raw(await self._payloads.fetch(operation_id, payload, limit=DOCUMENT_LIMIT))


NO_DOCUMENTS: Final = Documents(None)
"""Of a process without a payload store: all documents are in events."""
